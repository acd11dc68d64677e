----------------------------- MODULE Reservations -----------------------------
(***************************************************************************)
(* Best-effort uses: answered before their record, out of a reservation    *)
(* that was made durable before; and when a stop is acknowledged.          *)
(* Vault "a" of the constants makes the stop.  Each vault has a loop, a    *)
(* queue that one committer works off in order, and mail from it to the    *)
(* loop, in order.  Time is in ticks; a vault's clock may miss Drift of    *)
(* them in the life of a reservation.  At most one reservation a vault is  *)
(* held at a time, and Rows of them are made in all.                       *)
(***************************************************************************)
EXTENDS Naturals, Sequences, FiniteSets

CONSTANTS Vaults, Maker, Life, Drift, Count, Rows, Faults, NoHeld

ASSUME Maker \in Vaults
ASSUME Life \in Nat /\ Drift \in Nat /\ Count \in Nat /\ Rows \in Nat /\ Faults \in Nat

Bound == Life + Drift

VARIABLES
  epoch,       \* 1, and 2 once the stop has committed
  rows,        \* reservations in the registry, and the truth about them
  seen,        \* vault -> epoch that it has confirmed
  stop,        \* the stop on its way: [stage, at, own, age, by]
  faults,      \* commits that may still fail
  snap,        \* vault -> epoch that its loop knows
  knows,       \* vault -> epoch that its committer has read
  held,        \* vault -> [row, spent, age, lag], row 0: it is asked for; or NoHeld
  queue,       \* vault -> items for the committer
  late,        \* vault -> rows of released uses whose commit failed, [row, stands]
  mail,        \* vault -> items for the loop
  frozen       \* vault -> whether it spends nothing

vars == <<epoch, rows, seen, stop, faults, snap, knows, held, queue, late, mail, frozen>>

Item(what, number) == [what |-> what, number |-> number]
NoStop == [stage |-> "none", at |-> Maker, own |-> NoHeld, age |-> 0, by |-> "none"]

Init ==
  /\ epoch = 1 /\ rows = <<>> /\ faults = Faults /\ stop = NoStop
  /\ seen = [v \in Vaults |-> 1] /\ snap = [v \in Vaults |-> 1] /\ knows = [v \in Vaults |-> 1]
  /\ held = [v \in Vaults |-> NoHeld] /\ frozen = [v \in Vaults |-> FALSE]
  /\ queue = [v \in Vaults |-> <<>>] /\ mail = [v \in Vaults |-> <<>>]
  /\ late = [v \in Vaults |-> <<>>]

\* --- time ----------------------------------------------------------------------------------------

Ages(h) ==
  IF h = NoHeld \/ h.age >= Life THEN {h}
  ELSE {[h EXCEPT !.age = @ + 1]} \cup
       (IF h.lag < Drift THEN {[h EXCEPT !.lag = @ + 1]} ELSE {})

Tick ==
  /\ \E after \in [Vaults -> UNION {Ages(held[v]) : v \in Vaults}] :
       /\ \A v \in Vaults : after[v] \in Ages(held[v])
       /\ held' = after
  /\ stop' = IF stop.stage = "waits" /\ stop.age < Bound THEN [stop EXCEPT !.age = @ + 1] ELSE stop
  /\ UNCHANGED <<epoch, rows, seen, faults, snap, knows, queue, late, mail, frozen>>

\* --- the loop: uses ------------------------------------------------------------------------------

Asking == Cardinality({v \in Vaults : held[v] # NoHeld /\ held[v].row = 0})

\* The life is counted from here, before it is asked for.
Ask(v) ==
  /\ held[v] = NoHeld /\ Len(rows) + Asking < Rows
  /\ held' = [held EXCEPT ![v] = [row |-> 0, spent |-> 0, age |-> 0, lag |-> 0]]
  /\ queue' = [queue EXCEPT ![v] = Append(@, Item("open", 0))]
  /\ UNCHANGED <<epoch, rows, seen, stop, faults, snap, knows, late, mail, frozen>>

MaySpend(h) == h.spent < Count /\ h.age < Life

\* The answer is out; its record is queued in the same turn of the loop.
Spend(v) ==
  /\ held[v] # NoHeld /\ held[v].row # 0 /\ MaySpend(held[v])
  /\ ~frozen[v] /\ snap[v] = 1
  /\ held' = [held EXCEPT ![v].spent = @ + 1]
  /\ rows' = [rows EXCEPT ![held[v].row].answered = @ + 1]
  /\ queue' = [queue EXCEPT ![v] = Append(@, Item("record", held[v].row))]
  /\ UNCHANGED <<epoch, seen, stop, faults, snap, knows, late, mail, frozen>>

CloseHeld(v) ==
  /\ held[v] # NoHeld /\ held[v].row # 0 /\ ~MaySpend(held[v])
  /\ held' = [held EXCEPT ![v] = NoHeld]
  /\ queue' = [queue EXCEPT ![v] = Append(@, Item("close", held[v].row))]
  /\ UNCHANGED <<epoch, rows, seen, stop, faults, snap, knows, late, mail, frozen>>

\* --- the loop: what it learns --------------------------------------------------------------------

Queued(v, what) == \E i \in 1 .. Len(queue[v]) : queue[v][i].what = what

\* Woken or polling: the snapshot first, the confirmation after.
Poll(v) ==
  /\ \/ /\ epoch > snap[v] /\ ~Queued(v, "refresh")
        /\ queue' = [queue EXCEPT ![v] = Append(@, Item("refresh", 0))]
     \/ /\ snap[v] = epoch /\ seen[v] < epoch /\ ~Queued(v, "confirm")
        /\ queue' = [queue EXCEPT ![v] = Append(@, Item("confirm", snap[v]))]
  /\ UNCHANGED <<epoch, rows, seen, stop, faults, snap, knows, held, late, mail, frozen>>

Read(v) ==
  /\ mail[v] # <<>>
  /\ LET item == Head(mail[v]) IN
       /\ snap' = IF item.what = "snapshot" THEN [snap EXCEPT ![v] = item.number] ELSE snap
       /\ held' = CASE item.what = "granted" -> [held EXCEPT ![v].row = item.number]
                    [] item.what = "not granted" -> [held EXCEPT ![v] = NoHeld]
                    [] OTHER -> held
       /\ frozen' = IF item.what \in {"changed", "not changed"}
                    THEN [frozen EXCEPT ![v] = FALSE] ELSE frozen
       /\ stop' = CASE item.what = "changed" ->
                         [stop EXCEPT !.stage = "waits", !.at = v, !.own = v, !.age = 0]
                    [] item.what = "not changed" -> NoStop
                    [] OTHER -> stop
  /\ mail' = [mail EXCEPT ![v] = Tail(@)]
  /\ UNCHANGED <<epoch, rows, seen, faults, knows, queue, late>>

\* --- the stop ------------------------------------------------------------------------------------

AskStop ==
  /\ stop.stage = "none" /\ epoch = 1
  /\ stop' = [stop EXCEPT !.stage = "queued"]
  /\ frozen' = [frozen EXCEPT ![Maker] = TRUE]
  /\ queue' = [queue EXCEPT ![Maker] = Append(@, Item("change", 0))]
  /\ UNCHANGED <<epoch, rows, seen, faults, snap, knows, held, late, mail>>

\* Its first answer was lost: whichever vault is asked finds it done, and waits for everybody.
AskAgain(v) ==
  /\ stop.stage = "none" /\ epoch = 2
  /\ stop' = [stop EXCEPT !.stage = "waits", !.at = v, !.own = NoHeld, !.age = 0]
  /\ UNCHANGED <<epoch, rows, seen, faults, snap, knows, held, queue, late, mail, frozen>>

Outstanding ==
  {i \in 1 .. Len(rows) :
     ~rows[i].closed /\ rows[i].vault # stop.own /\ rows[i].epoch < 2 /\ seen[rows[i].vault] < 2}

Acknowledge ==
  /\ stop.stage = "waits"
  /\ Outstanding = {} \/ stop.age >= Bound
  /\ stop' = [stop EXCEPT !.stage = "acknowledged", !.age = 0,
              !.by = IF Outstanding = {} THEN "confirmed" ELSE "bound"]
  /\ UNCHANGED <<epoch, rows, seen, faults, snap, knows, held, queue, late, mail, frozen>>

\* --- the committer -------------------------------------------------------------------------------

News(v) == IF knows[v] < epoch THEN <<Item("snapshot", epoch)>> ELSE <<>>
NewRow(v) == [vault |-> v, epoch |-> epoch, answered |-> 0, recorded |-> 0, closed |-> FALSE, gap |-> 0]

\* What is released and not recorded stands before anything else.
CommitRecord(v) ==
  /\ LET retried == late[v] # <<>>
         waits == queue[v] # <<>> /\ Head(queue[v]).what = "record"
         entry == IF retried THEN Head(late[v]) ELSE [row |-> Head(queue[v]).number, stands |-> FALSE]
         applied == [rows EXCEPT ![entry.row].recorded = @ + (IF entry.stands THEN 0 ELSE 1)]
         rest == IF retried THEN queue ELSE [queue EXCEPT ![v] = Tail(@)]
     IN /\ retried \/ waits
        /\ queue' = rest
        /\ \/ /\ rows' = applied
              /\ late' = IF retried THEN [late EXCEPT ![v] = Tail(@)] ELSE late
              /\ mail' = [mail EXCEPT ![v] = @ \o News(v)]
              /\ knows' = [knows EXCEPT ![v] = epoch]
              /\ faults' = faults
           \/ /\ faults > 0 /\ faults' = faults - 1
              /\ \E stands \in BOOLEAN :
                   /\ rows' = IF stands THEN applied ELSE rows
                   /\ late' = IF retried
                              THEN [late EXCEPT ![v][1].stands = @ \/ stands]
                              ELSE [late EXCEPT ![v] = Append(@, [entry EXCEPT !.stands = stands])]
              /\ UNCHANGED <<mail, knows>>
  /\ UNCHANGED <<epoch, seen, stop, snap, held, frozen>>

Result(item) ==
  CASE item.what = "open" -> <<Item("granted", Len(rows) + 1)>>
    [] item.what = "change" -> <<Item("changed", 0)>>
    [] OTHER -> <<>>
Failure(item) ==
  CASE item.what = "open" -> <<Item("not granted", 0)>>
    [] item.what = "change" -> <<Item("not changed", 0)>>
    [] OTHER -> <<>>

Apply(v, item) ==
  /\ epoch' = IF item.what = "change" THEN 2 ELSE epoch
  /\ rows' = CASE item.what = "open" -> Append(rows, NewRow(v))
               [] item.what = "close" -> [rows EXCEPT ![item.number].closed = TRUE]
               [] OTHER -> rows
  /\ seen' = IF item.what = "confirm" THEN [seen EXCEPT ![v] = item.number] ELSE seen

Commit(v) ==
  /\ late[v] = <<>> /\ queue[v] # <<>> /\ Head(queue[v]).what # "record"
  /\ LET item == Head(queue[v]) IN
       \/ /\ Apply(v, item)
          /\ knows' = [knows EXCEPT ![v] = epoch']
          /\ mail' = [mail EXCEPT ![v] =
                        @ \o (IF knows[v] < epoch' THEN <<Item("snapshot", epoch')>> ELSE <<>>)
                          \o Result(item)]
          /\ faults' = faults
       \/ /\ faults > 0 /\ faults' = faults - 1   \* not applied, or applied and not known
          /\ Apply(v, item) \/ UNCHANGED <<epoch, rows, seen>>
          /\ mail' = [mail EXCEPT ![v] = @ \o Failure(item)]
          /\ knows' = knows
  /\ queue' = [queue EXCEPT ![v] = Tail(@)]
  /\ UNCHANGED <<stop, snap, held, late, frozen>>

\* A start tells what the crash left: what was reserved less the uses that were recorded.
Crash(v) ==
  /\ rows' = [i \in 1 .. Len(rows) |->
       IF rows[i].vault = v /\ ~rows[i].closed
       THEN [rows[i] EXCEPT !.closed = TRUE, !.gap = Count - rows[i].recorded]
       ELSE rows[i]]
  /\ snap' = [snap EXCEPT ![v] = epoch] /\ knows' = [knows EXCEPT ![v] = epoch]
  /\ held' = [held EXCEPT ![v] = NoHeld] /\ frozen' = [frozen EXCEPT ![v] = FALSE]
  /\ queue' = [queue EXCEPT ![v] = <<>>] /\ mail' = [mail EXCEPT ![v] = <<>>]
  /\ late' = [late EXCEPT ![v] = <<>>]
  /\ stop' = IF stop.stage \in {"queued", "waits"} /\ stop.at = v THEN NoStop ELSE stop
  /\ UNCHANGED <<epoch, seen, faults>>

Next ==
  \/ Tick \/ AskStop \/ Acknowledge
  \/ \E v \in Vaults :
       \/ Ask(v) \/ Spend(v) \/ CloseHeld(v) \/ Poll(v) \/ Read(v) \/ AskAgain(v)
       \/ CommitRecord(v) \/ Commit(v) \/ Crash(v)

Spec == Init /\ [][Next]_vars

\* --- what must hold ------------------------------------------------------------------------------

\* I2: no more is answered than was reserved, and what a closed reservation answered has a record
\* or is in its gap.
Accounted ==
  \A i \in 1 .. Len(rows) :
    /\ rows[i].answered <= Count /\ rows[i].gap <= Count
    /\ rows[i].closed => rows[i].answered <= rows[i].recorded + rows[i].gap

Answered(i) == IF i <= Len(rows) THEN rows[i].answered ELSE 0
Recorded(i) == IF i <= Len(rows) THEN rows[i].recorded ELSE 0

\* I4: nothing is answered once the stop was acknowledged.
NothingAfter ==
  [][\A i \in 1 .. Rows : Answered(i)' > Answered(i) => stop.stage # "acknowledged"]_vars

\* I4: where every node has confirmed, no record of what was stopped comes after.
NoRecordAfter ==
  [][\A i \in 1 .. Rows : Recorded(i)' > Recorded(i) => stop.by # "confirmed"]_vars
=============================================================================
