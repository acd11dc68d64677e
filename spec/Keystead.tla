------------------------------ MODULE Keystead ------------------------------
(***************************************************************************)
(* Durable uses on several vaults: the commit fence, idempotency keys and  *)
(* budgets (docs/model.md).  One registry; a commit of uses is "shared", a *)
(* change of authority "exclusive".  A vault that takes no step is         *)
(* suspended; a message that is not read is lost or late.                  *)
(***************************************************************************)
EXTENDS Naturals, FiniteSets

CONSTANTS
  Vaults,      \* those that admit, sign and commit
  Requests,    \* what clients ask for
  Repeated,    \* the requests that have an idempotency key, each its own
  Budgeted,    \* the requests under a handle with a budget
  Most,        \* uses that the budget allows
  Sends,       \* how often a request is sent, at whichever vault
  MaxEpoch,    \* where it ends
  Nothing      \* in place of a signature

ASSUME Repeated \subseteq Requests /\ Budgeted \subseteq Requests
ASSUME Most \in Nat /\ Sends \in Nat /\ MaxEpoch \in Nat

VARIABLES
  epoch,       \* of the registry
  stopped,     \* whether the version or the handle is stopped, as of the epoch
  final,       \* whether it is stopped for good
  spent,       \* of the budget
  stored,      \* request -> signature kept under its idempotency key
  recorded,    \* signatures with a record
  given,       \* signatures that a client holds
  sent,        \* request -> how often it was sent
  snap,        \* vault -> [epoch, stopped] that its loop knows
  jobs         \* vault -> uses under way

vars == <<epoch, stopped, final, spent, stored, recorded, given, sent, snap, jobs>>

Signatures == Requests \X (1 .. Sends)   \* each sending makes its own
Stages == {"done", "open", "settled"}
Jobs == [sig : Signatures, epoch : 1 .. MaxEpoch, stage : Stages,
         found : Signatures \cup {Nothing}, budget : 0 .. Cardinality(Signatures),
         out : Signatures \cup {Nothing}]

RequestOf(j) == j.sig[1]
Open == {j \in UNION {jobs[v] : v \in Vaults} : j.stage = "open"}

TypeOK ==
  /\ epoch \in 1 .. MaxEpoch /\ stopped \in BOOLEAN /\ final \in BOOLEAN
  /\ spent \in Nat
  /\ stored \in [Repeated -> Signatures \cup {Nothing}]
  /\ recorded \subseteq Signatures /\ given \subseteq Signatures \X Signatures
  /\ sent \in [Requests -> 0 .. Sends]
  /\ snap \in [Vaults -> [epoch : 1 .. MaxEpoch, stopped : BOOLEAN]]
  /\ jobs \in [Vaults -> SUBSET Jobs]

Init ==
  /\ epoch = 1 /\ stopped = FALSE /\ final = FALSE
  /\ spent = 0
  /\ stored = [r \in Repeated |-> Nothing]
  /\ recorded = {} /\ given = {}
  /\ sent = [r \in Requests |-> 0]
  /\ snap = [v \in Vaults |-> [epoch |-> 1, stopped |-> FALSE]]
  /\ jobs = [v \in Vaults |-> {}]

Swap(v, j, after) == jobs' = [jobs EXCEPT ![v] = (@ \ {j}) \cup after]

\* --- changes of authority: exclusive, each under the next epoch ---------------------------------

Change(stop, forever) ==
  /\ epoch < MaxEpoch /\ ~final /\ stop # stopped
  /\ Open = {}
  /\ epoch' = epoch + 1
  /\ stopped' = stop
  /\ final' = forever
  /\ UNCHANGED <<spent, stored, recorded, given, sent, snap, jobs>>

Revoke == Change(TRUE, TRUE)
Suspend == Change(TRUE, FALSE)
Resume == Change(FALSE, FALSE)

\* --- a vault: what it knows, what it does -------------------------------------------------------

Adopt(v) ==
  /\ snap[v].epoch < epoch
  /\ snap' = [snap EXCEPT ![v] = [epoch |-> epoch, stopped |-> stopped]]
  /\ UNCHANGED <<epoch, stopped, final, spent, stored, recorded, given, sent, jobs>>

Admit(v, r) ==
  /\ sent[r] < Sends /\ ~snap[v].stopped
  /\ sent' = [sent EXCEPT ![r] = @ + 1]
  /\ jobs' = [jobs EXCEPT ![v] = @ \cup
       {[sig |-> <<r, sent[r] + 1>>, epoch |-> snap[v].epoch, stage |-> "done",
         found |-> Nothing, budget |-> 0, out |-> Nothing]}]
  /\ UNCHANGED <<epoch, stopped, final, spent, stored, recorded, given, snap>>

Crash(v) ==
  /\ jobs[v] # {}
  /\ jobs' = [jobs EXCEPT ![v] = {}]
  /\ snap' = [snap EXCEPT ![v] = [epoch |-> epoch, stopped |-> stopped]]
  /\ UNCHANGED <<epoch, stopped, final, spent, stored, recorded, given, sent>>

\* --- the commit of a use: reads under its locks, decides, is applied or not ----------------------

Begin(v, j) ==
  /\ j.stage = "done"
  /\ \A k \in jobs[v] : k.stage # "open"
  /\ RequestOf(j) \in Budgeted => \A k \in Open : RequestOf(k) \notin Budgeted
  /\ Swap(v, j, {[j EXCEPT !.stage = "open", !.budget = spent,
                  !.found = IF RequestOf(j) \in Repeated THEN stored[RequestOf(j)] ELSE Nothing]})
  /\ UNCHANGED <<epoch, stopped, final, spent, stored, recorded, given, sent, snap>>

\* decide: the fence, then the idempotency key, then the budget
Stands(j) == j.epoch = epoch \/ ~stopped
IsReplay(j) == Stands(j) /\ j.found # Nothing
Affords(j) == RequestOf(j) \in Budgeted => j.budget < Most
IsAccepted(j) == Stands(j) /\ j.found = Nothing /\ Affords(j)
Collides(j) == RequestOf(j) \in Repeated /\ stored[RequestOf(j)] # j.found

Apply(j) ==
  /\ recorded' = recorded \cup {j.sig}
  /\ spent' = IF RequestOf(j) \in Budgeted THEN j.budget + 1 ELSE spent
  /\ stored' = IF RequestOf(j) \in Repeated
               THEN [stored EXCEPT ![RequestOf(j)] = j.sig] ELSE stored
  /\ UNCHANGED <<epoch, stopped, final, given, sent, snap>>

Commit(v, j) ==
  /\ j.stage = "open" /\ IsAccepted(j) /\ ~Collides(j)
  /\ Apply(j)
  /\ Swap(v, j, {[j EXCEPT !.stage = "settled", !.out = j.sig]})

OutcomeLost(v, j) ==
  /\ j.stage = "open" /\ IsAccepted(j) /\ ~Collides(j)
  /\ Apply(j)
  /\ Swap(v, j, {})

Contend(v, j) ==
  /\ j.stage = "open" /\ IsAccepted(j) /\ Collides(j)
  /\ Swap(v, j, {[j EXCEPT !.stage = "done"]})
  /\ UNCHANGED <<epoch, stopped, final, spent, stored, recorded, given, sent, snap>>

Replay(v, j) ==
  /\ j.stage = "open" /\ IsReplay(j)
  /\ Swap(v, j, {[j EXCEPT !.stage = "settled", !.out = j.found]})
  /\ UNCHANGED <<epoch, stopped, final, spent, stored, recorded, given, sent, snap>>

\* refused by the decision, or not applied: disk, database, or a session that the server ended
Fail(v, j) ==
  /\ j.stage = "open"
  /\ Swap(v, j, {})
  /\ UNCHANGED <<epoch, stopped, final, spent, stored, recorded, given, sent, snap>>

\* --- the answer ----------------------------------------------------------------------------------

Answer(v, j) ==
  /\ j.stage = "settled"
  /\ given' = given \cup {<<j.sig, j.out>>}
  /\ Swap(v, j, {})
  /\ UNCHANGED <<epoch, stopped, final, spent, stored, recorded, sent, snap>>

Lose(v, j) ==
  /\ j.stage = "settled"
  /\ Swap(v, j, {})
  /\ UNCHANGED <<epoch, stopped, final, spent, stored, recorded, given, sent, snap>>

Next ==
  \/ Revoke \/ Suspend \/ Resume
  \/ \E v \in Vaults :
       \/ Adopt(v) \/ Crash(v)
       \/ \E r \in Requests : Admit(v, r)
       \/ \E j \in jobs[v] :
            \/ Begin(v, j) \/ Commit(v, j) \/ OutcomeLost(v, j) \/ Contend(v, j)
            \/ Replay(v, j) \/ Fail(v, j) \/ Answer(v, j) \/ Lose(v, j)

Spec == Init /\ [][Next]_vars

\* --- what must hold ------------------------------------------------------------------------------

\* I2: whatever a client holds has a record.
RecordBeforeAnswer == \A pair \in given : pair[2] \in recorded

\* I5: no budget is overspent over all vaults.
BudgetHolds == Cardinality({s \in recorded : s[1] \in Budgeted}) <= Most

\* I6: one record under one idempotency key, and all its answers are that one.
OneEffect ==
  \A r \in Repeated :
    /\ Cardinality({s \in recorded : s[1] = r}) <= 1
    /\ \A pair \in given : pair[1][1] = r => pair[2] = stored[r]

\* I4: epochs only grow.
EpochGrows == [][epoch' >= epoch /\ (stopped' # stopped => epoch' > epoch)]_vars

\* I3, I4: no record of what is stopped is committed.
NoStoppedUse == [][recorded' # recorded => ~stopped]_vars

\* I6: no stored result is found for what is stopped.
Settled(out) == {j \in UNION {jobs[v] : v \in Vaults} : j.stage = "settled" /\ j.out = out}
NoStoppedReplay ==
  [][\A s \in Signatures :
       (Cardinality(Settled(s)') > Cardinality(Settled(s))) => ~stopped]_vars
=============================================================================
