-------------------------------- MODULE Lease --------------------------------
(***************************************************************************)
(* Who leads (keys/leases.py): a lease with a fence.  No clock is modelled *)
(* but the wish to take over, which may come at any time: that a lease is  *)
(* taken too early must do no harm.  Beats only tell sightings apart, and  *)
(* are left out for the same reason.                                       *)
(***************************************************************************)
EXTENDS Naturals

CONSTANTS Nodes, Nobody, MaxFence

VARIABLES
  holder,      \* of the lease in the registry
  fence,       \* of the lease in the registry
  believes,    \* node -> the fence under which it thinks to lead, 0: it does not
  told,        \* node -> what its loop will hear of its last round, 0: nothing
  begun,       \* node -> the fence of what it has begun, 0: nothing
  acted        \* fences under which something was done, in order of commits: the last one

vars == <<holder, fence, believes, told, begun, acted>>

TypeOK ==
  /\ holder \in Nodes \cup {Nobody} /\ fence \in 0 .. MaxFence
  /\ believes \in [Nodes -> 0 .. MaxFence] /\ told \in [Nodes -> 0 .. MaxFence]
  /\ begun \in [Nodes -> 0 .. MaxFence] /\ acted \in 0 .. MaxFence

Init ==
  /\ holder = Nobody /\ fence = 0 /\ acted = 0
  /\ believes = [n \in Nodes |-> 0]
  /\ told = [n \in Nodes |-> 0]
  /\ begun = [n \in Nodes |-> 0]

\* A round's commit: it renews its own lease, or takes it over under the next fence.
Renew(n) ==
  /\ holder = n
  /\ told' = [told EXCEPT ![n] = fence]
  /\ UNCHANGED <<holder, fence, believes, begun, acted>>

Take(n) ==
  /\ holder # n /\ fence < MaxFence
  /\ holder' = n /\ fence' = fence + 1
  /\ told' \in {[told EXCEPT ![n] = fence + 1], told}   \* or its outcome is lost
  /\ UNCHANGED <<believes, begun, acted>>

Hear(n) ==
  /\ told[n] # 0
  /\ believes' = [believes EXCEPT ![n] = told[n]]
  /\ told' = [told EXCEPT ![n] = 0]
  /\ UNCHANGED <<holder, fence, begun, acted>>

StepBack(n) ==
  /\ believes[n] # 0 /\ holder # n
  /\ believes' = [believes EXCEPT ![n] = 0]
  /\ UNCHANGED <<holder, fence, told, begun, acted>>

Decide(n) ==
  /\ believes[n] # 0 /\ begun[n] = 0
  /\ begun' = [begun EXCEPT ![n] = believes[n]]
  /\ UNCHANGED <<holder, fence, believes, told, acted>>

\* The fence is checked inside the commit of what the leader does.
Act(n) ==
  /\ begun[n] # 0 /\ holder = n /\ fence = begun[n]
  /\ acted' = begun[n]
  /\ begun' = [begun EXCEPT ![n] = 0]
  /\ UNCHANGED <<holder, fence, believes, told>>

Refuse(n) ==
  /\ begun[n] # 0 /\ (holder # n \/ fence # begun[n])
  /\ begun' = [begun EXCEPT ![n] = 0]
  /\ UNCHANGED <<holder, fence, believes, told, acted>>

Crash(n) ==
  /\ believes' = [believes EXCEPT ![n] = 0]
  /\ told' = [told EXCEPT ![n] = 0]
  /\ begun' = [begun EXCEPT ![n] = 0]
  /\ UNCHANGED <<holder, fence, acted>>

Next == \E n \in Nodes :
  Renew(n) \/ Take(n) \/ Hear(n) \/ StepBack(n) \/ Decide(n) \/ Act(n) \/ Refuse(n) \/ Crash(n)

Spec == Init /\ [][Next]_vars

\* No two leaders act in turns: what is done is done under fences that only grow,
\* and none of it after the next fence was given.
FenceGrows == [][fence' >= fence /\ (holder' # holder => fence' > fence)]_vars
NoOldLeader == [][acted' # acted => acted' = fence]_vars
ActsInOrder == [][acted' >= acted]_vars
=============================================================================
