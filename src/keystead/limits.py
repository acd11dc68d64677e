"""Every bound, with its unit in its name and its reason beside it (invariant I11).

A bound is checked before the work it bounds. Past it the answer is an early refusal that names it.
"""

from __future__ import annotations

__all__ = [
    "ACKNOWLEDGE_POLL_S",
    "ADMIN_BODY_BYTES_MAX",
    "ARTEFACTS_MAX",
    "ARTEFACT_BYTES_MAX",
    "ARTEFACT_FETCH_S",
    "ARTEFACT_FILES_MAX",
    "ARTEFACT_FOLDERS_DEEP_MAX",
    "ARTEFACT_REDIRECTS_MAX",
    "ARTEFACT_SOURCE_BYTES_MAX",
    "BATCH_ITEMS_MAX",
    "BEST_EFFORT_FLUSH_S",
    "BODY_BYTES_MAX",
    "CERT_BACKDATE_S",
    "CERT_SANS_MAX",
    "CHECKPOINT_EXTENSIONS_MAX",
    "COMMIT_GROUP_MAX",
    "CONTEXT_BYTES_MAX",
    "CONTEXT_SEGMENTS_MAX",
    "CRL_LIFETIME_MAX_S",
    "CRL_REVOKED_MAX",
    "CSR_BYTES_MAX",
    "DATA_BYTES_MAX",
    "DENIALS_RECORDED_PER_MINUTE",
    "DENIAL_SCOPES_MAX",
    "DERIVED_BYTES_MAX",
    "EPOCH_POLL_S",
    "FIRMWARE_NAMES_MAX",
    "FIRMWARE_STEP_MAX",
    "FRAME_BYTES_MAX",
    "FRAME_REQUESTS_MAX",
    "FRONT_IN_FLIGHT_MAX",
    "FRONT_IN_FLIGHT_MIN",
    "FSCK_ALONE_MAX",
    "FSCK_CHUNK",
    "FSCK_FINDINGS_MAX",
    "FSCK_GAP_MAX",
    "FSCK_ODD_FILES_MAX",
    "FSCK_PROCESSES_MAX",
    "FSCK_STATE_BYTES_MAX",
    "FSCK_STATE_EVERY",
    "HANDLE_BYTES_MAX",
    "HANDLE_CACHE_MAX",
    "HANDLE_CAVEATS_MAX",
    "HANDLE_IN_FLIGHT_MAX",
    "HEADER_BYTES_MAX",
    "IDEMPOTENCY_KEYS_PER_HANDLE_MAX",
    "IDEMPOTENCY_KEY_BYTES_MAX",
    "IDEMPOTENCY_TTL_MS",
    "JSON_DEPTH_MAX",
    "JWT_CLAIMS_BYTES_MAX",
    "KEY_VERSIONS_MAX",
    "LABELS_MAX",
    "LABEL_BYTES_MAX",
    "LEASE_LIFE_MS",
    "LEDGER_ENTRY_BYTES_MAX",
    "LIST_ITEMS_MAX",
    "LOG_BODY_BYTES_MAX",
    "LOG_DETAIL_BYTES_MAX",
    "LOG_ENTRY_BYTES_MAX",
    "LOG_FORGET_AGE_MS",
    "LOG_FORGET_ROWS",
    "LOG_INDEX_EVERY",
    "LOG_INDEX_ROWS_MAX",
    "LOG_PAGE_BYTES_MAX",
    "LOG_RECONCILE_BODY_BYTES_MAX",
    "LOG_RECONCILE_HASHED_BYTES_MAX",
    "LOG_RECONCILE_ITEMS_MAX",
    "LOG_RECONCILE_PAGES_MAX",
    "LOG_SCAN_ROWS_MAX",
    "LOG_SEARCHES_MAX",
    "LOG_SEARCH_THREADS",
    "LOG_SIZE_MAX",
    "MERKLE_PROOF_HASHES_MAX",
    "NAME_BYTES_MAX",
    "NOTE_BYTES_MAX",
    "NOTE_KEY_NAME_BYTES_MAX",
    "NOTE_SIGNATURES_MAX",
    "OPENED_KEYS_MAX",
    "PROOF_BYTES_MAX",
    "PROOF_SKEW_MS",
    "QUEUE_DELAY_TARGET_S",
    "RATE_BUCKETS_MAX",
    "REASON_BYTES_MAX",
    "REQUEST_TIMEOUT_S",
    "RESERVATION_DRIFT_MS",
    "RESERVATION_LIFE_MS",
    "RESERVATION_USES",
    "REVOKE_HANDLES_A_KEY",
    "REVOKE_KEYS_A_PAGE",
    "REVOKE_KEYS_MAX",
    "REVOKE_LOOKS_A_PAGE",
    "REVOKE_USED_MS",
    "RSA_BITS_MAX",
    "RSA_BITS_MIN",
    "RSA_EXPONENT_MIN",
    "SERIAL_BITS_MAX",
    "SSH_FORCE_COMMAND_BYTES_MAX",
    "SSH_KEY_ID_BYTES_MAX",
    "SSH_LINE_BYTES_MAX",
    "SSH_PRINCIPALS_MAX",
    "SSH_PRINCIPAL_BYTES_MAX",
    "SSH_RSA_BITS_MAX",
    "SSH_RSA_BITS_MIN",
    "SSH_SOURCE_ADDRESSES_MAX",
    "TENANT_USES_PER_S",
    "TILE_CACHE_MAX",
    "TLS_TRANSCRIPT_BYTES",
    "TRUST_POLICY_BYTES_MAX",
    "TRUST_POLICY_ITEMS_MAX",
    "VAULT_QUEUE_MAX",
    "VERSION_USES_MAX",
    "WITNESS_ANSWER_BYTES_MAX",
    "WITNESS_ANSWER_S",
    "WITNESS_BODY_BYTES_MAX",
    "WITNESS_CONNECTIONS_MAX",
    "WITNESS_IN_FLIGHT_MAX",
    "WITNESS_LOGS_MAX",
    "WITNESS_REQUEST_S",
]

# --- what a stranger sends -----------------------------------------------------------------------

BODY_BYTES_MAX = 4 * 1024 * 1024
"""Data-plane request body: a batch of 1,000 JWTs of 4 KiB of claims fits."""
ADMIN_BODY_BYTES_MAX = 64 * 1024
"""Admin request body: the largest policy is a few KiB."""
HEADER_BYTES_MAX = 16 * 1024
"""All request headers together: nginx, Apache and h11 settle between 8 and 16 KiB."""
BATCH_ITEMS_MAX = 1_000
"""Requests in one batch: amortises the commit, and stays below one frame."""
JSON_DEPTH_MAX = 16
"""Nesting of free-form JSON (JWT claims): far above use, far below the parser's recursion limit."""
REQUEST_TIMEOUT_S = 30.0
"""From the first byte of a request to its answer: the usual proxy gives up after 60 s."""
FRONT_IN_FLIGHT_MAX = 4_096
"""Data-plane requests a front keeps open; past it it answers `overloaded` at once."""
FRONT_IN_FLIGHT_MIN = 128
"""The least that a front keeps open however slow its vault is: so many at a time are no flood, and
enough to fill its commits."""
QUEUE_DELAY_TARGET_S = 0.05
"""Queue delay above which a front admits less: a tenth of what people notice, ten fsyncs of a
common disk, and at 10,000 uses a second some 500 open, enough that the vault is never idle."""
HANDLE_IN_FLIGHT_MAX = 1_024
"""Of those, requests under one handle, so that one holder cannot fill the front."""

# --- frames between front and vault --------------------------------------------------------------

FRAME_BYTES_MAX = 16 * 1024 * 1024
"""One frame: four full bodies in one turn of the front's loop."""
FRAME_REQUESTS_MAX = 4_096
"""Requests in one frame: as many as a front may have in flight."""
VAULT_QUEUE_MAX = 16_384
"""Uses waiting for the committer; past it the vault answers `overloaded`."""
COMMIT_GROUP_MAX = 2_048
"""Records in one commit: bounds how long a stop command waits behind a group."""

# --- names ---------------------------------------------------------------------------------------

NAME_BYTES_MAX = 64
"""Names of keys, tenants, principals: a DNS label's 63, and one."""
LABELS_MAX = 16
"""Labels of a key (service, region, environment and a deployment's own)."""
LABEL_BYTES_MAX = 128
"""One label value."""
CONTEXT_BYTES_MAX = 256
"""A context in full; it stands in every record, so it is short."""
CONTEXT_SEGMENTS_MAX = 12
"""Slash-separated parts of a context."""
REASON_BYTES_MAX = 256
"""The free-text reason of a use or change; it stands in the record."""
IDEMPOTENCY_KEY_BYTES_MAX = 64
"""As the IETF idempotency-key draft's UUIDs, with room to spare."""
LIST_ITEMS_MAX = 1_000
"""Rows that one listing answer holds."""

# --- handles -------------------------------------------------------------------------------------

HANDLE_BYTES_MAX = 4 * 1024
"""A handle's token: it travels in a header, of which servers commonly take 8 KiB."""
HANDLE_CAVEATS_MAX = 16
"""Links of a chain: each costs one HMAC at every first sight of the handle."""
HANDLE_CACHE_MAX = 8_192
"""Verified handles a vault remembers, some 2 KiB each."""
TENANT_USES_PER_S = 20_000
"""A tenant's budget until an operator sets one: more than one node serves, so that a node with one
tenant is never held back, and still a bound on what a batch may ask for at once."""
RATE_BUCKETS_MAX = 65_536
"""Token buckets of `rate` caveats a node keeps; the least recently used goes first."""
PROOF_SKEW_MS = 60_000
"""How far the time in a proof of possession may be from the vault's."""

# --- replay --------------------------------------------------------------------------------------

IDEMPOTENCY_TTL_MS = 24 * 3600 * 1000
"""How long an idempotency key answers with its first result (I6)."""
IDEMPOTENCY_KEYS_PER_HANDLE_MAX = 1_000_000
"""Live idempotency keys under one handle: a day at 11 a second."""

# --- custody -------------------------------------------------------------------------------------

OPENED_KEYS_MAX = 1_024
"""Private keys held open at a time; the least recently used is closed and wiped."""
KEY_VERSIONS_MAX = 1_000
"""Versions of a key, ever: each stands in its row, which every change of the key writes anew."""

VERSION_USES_MAX = 2**32
"""Encryptions under one symmetric version: RFC 8452 section 6 allows far more with 96-bit nonces
and per-context subkeys; this is NIST SP 800-38D's habit, kept as a reason to rotate."""

# --- records -------------------------------------------------------------------------------------

DENIALS_RECORDED_PER_MINUTE = 60
"""Denials written one by one per (scope, code, minute); the rest are counted in one record."""
DENIAL_SCOPES_MAX = 4_096
"""Scopes whose denials are counted apart; past it they share one."""
RESERVATION_USES = 2_000
"""Uses one best-effort reservation holds: the most a crash can leave as a gap (I2)."""
RESERVATION_LIFE_MS = 2_000
"""How long a reservation may be spent, by CLOCK_BOOTTIME from before it was asked for."""
RESERVATION_DRIFT_MS = 20
"""What CLOCK_BOOTTIME of two machines may drift apart in a reservation's life: a hundredth, where
crystals are within a ten-thousandth and NTP slews by a two-thousandth."""
BEST_EFFORT_FLUSH_S = 0.05
"""Within this the record of a best-effort use follows its answer (I2)."""

# --- several nodes --------------------------------------------------------------------------------

LEASE_LIFE_MS = 5_000
"""A leader that has not renewed its lease for so long is replaced; it renews once a second."""
EPOCH_POLL_S = 0.25
"""How often a node asks for the epoch where no notification comes: the truth is in the asking."""

# --- revoking -------------------------------------------------------------------------------------

REVOKE_KEYS_MAX = 1_000
"""Keys that one revocation stops: a row and a record each, all in one commit of some 0.2 s, for
which uses wait. Beyond, a tenant is stopped as a whole at once, by one row: `emergency stop`."""
REVOKE_KEYS_A_PAGE = 50
"""Keys in one page of a dry run, unless their handles end it before."""
REVOKE_HANDLES_A_KEY = 200
"""Handles of a key that a dry run lists; of more it says that there are more."""
REVOKE_LOOKS_A_PAGE = 20
"""Looks into logs of one page of a dry run, `LOG_SCAN_ROWS_MAX` records each: some two seconds of a
thread. What was not looked at then is said to be more."""
REVOKE_USED_MS = 24 * 3600 * 1000
"""How far back a dry run counts uses: 24 h, within which nothing is forgotten."""
ACKNOWLEDGE_POLL_S = 0.025
"""How often a revocation looks whether other nodes have confirmed it: an eightieth of the bound."""

# --- the Merkle log ------------------------------------------------------------------------------

LOG_SIZE_MAX = 2**63 - 1
"""Leaves of a tree: the database's integer, and the greatest whose audit path has 63 hashes."""
LOG_ENTRY_BYTES_MAX = 2**16 - 1
"""One entry of a bundle: what tlog-tiles' uint16 length can say. Keystead's own have 32."""
LOG_BODY_BYTES_MAX = 64 * 1024
"""A record's body inside a proof file: a full record takes 2 KiB, a list of ranges some more."""
MERKLE_PROOF_HASHES_MAX = 63
"""Hashes of one proof: tlog-witness has no more, and no tree of `LOG_SIZE_MAX` needs more."""
TILE_CACHE_MAX = 64
"""Tiles a reader keeps, 8 KiB each: eight levels of both ends of a consistency proof, and more."""
NOTE_BYTES_MAX = 256 * 1024
"""A signed note: 64 post-quantum signatures of 3.3 KB in base64, and the text."""
NOTE_SIGNATURES_MAX = 64
"""Signature lines of a note: signed-note wants 16 at least; tlog-policy's 32 witnesses twice."""
NOTE_KEY_NAME_BYTES_MAX = 255
"""A note key's name, and a log's origin: tlog-cosignature's ML-DSA message has one length byte."""
CHECKPOINT_EXTENSIONS_MAX = 16
"""Extension lines of a checkpoint: tlog-checkpoint recommends none."""
PROOF_BYTES_MAX = 512 * 1024
"""A proof file: a full note, a full body in base64, and the hashes."""
TRUST_POLICY_BYTES_MAX = 512 * 1024
"""A tlog-policy file: 128 ML-DSA keys of 1.8 KB in base64, their addresses, and comments."""
TRUST_POLICY_ITEMS_MAX = 64
"""Logs, witnesses and groups of a policy, each: tlog-policy wants 32 at least."""

# --- witnesses -----------------------------------------------------------------------------------

WITNESS_BODY_BYTES_MAX = NOTE_BYTES_MAX + 4 * 1024
"""A submission to a witness: a full note, behind 64 lines of at most 45 bytes."""
WITNESS_LOGS_MAX = 64
"""Log keys of one witness: they are named one by one when it starts."""
WITNESS_IN_FLIGHT_MAX = 64
"""Submissions a witness works on: one for each log; a commit each, they take a second or two."""
WITNESS_CONNECTIONS_MAX = 256
"""Connections a witness takes: few logs keep one each, the rest are monitors."""
WITNESS_REQUEST_S = 10.0
"""From a submission's head to its answer: its body is small, and its log asks again anyway."""
WITNESS_ANSWER_BYTES_MAX = 64 * 1024
"""What a log reads of a witness's answer: one or two post-quantum signature lines take 10 KiB."""
WITNESS_ANSWER_S = 5.0
"""How long a log waits for one witness, from before it connects; it is one of several."""

LOG_LEAVES_HELD_MAX = 100_000
"""Leaves a vault holds between two checkpoints, 12 MB; while nobody asks for one, the rest is read
from the database when somebody does."""
LOG_ROWS_AT_ONCE = 1_000
"""Rows of the log that are read, hashed or written in one go: some milliseconds of the loop."""
TILE_FILE_BYTES_MAX = 256 * 1024
"""What is read of a published file: a checkpoint has the bound of a note, a tile takes 8 KiB."""
TREE_ROWS_AT_ONCE = 8 * 256
"""Records that the steward reads and makes tiles of in one go: 8 full tiles, 2 MB."""
PROOF_WAIT_S = 5.0
"""How long a use with ``?wait=proof`` waits for the checkpoint that covers it: several rounds."""
PROOF_WAITS_MAX = 1_024
"""Requests of a front that wait for their proofs at a time."""
CHECKPOINT_EVERY_S = 0.4
"""From one checkpoint to the next while the log grows; a use is covered within a second."""
COSIGN_WAIT_S = 1.0
"""For so long a new checkpoint waits for its witnesses before it is published without."""
COSIGN_RETRY_MAX_S = 30.0
"""The longest pause before a witness that does not answer is asked again."""
CHECKPOINTS_KEPT_MS = 24 * 3600 * 1000
"""For so long every checkpoint is kept, of older ones the last of each hour."""
CHECKPOINTS_PRUNED_AT_ONCE = 200
"""Checkpoints that one commit drops: more than are signed between two such commits."""

LOG_SCAN_ROWS_MAX = 50_000
"""Records that one search looks at, found or not: a twentieth of a second of one core here. One
that has no index for its question says where to go on."""
LOG_INDEX_EVERY = 2 * 1_024
"""Records past the log's index by a column at which a commit puts them into it, in some ten
milliseconds: so many that a page of it is changed for several. A search looks at them one by one,
in half a millisecond."""
LOG_INDEX_ROWS_MAX = 12 * 1_024
"""Records that one commit puts into the index at most: more than four commits append, of which each
sees to one of four columns, so that a log from before it is caught up with."""
LOG_PAGE_BYTES_MAX = 4 * 1024 * 1024
"""Record bodies in one page of a search: 1,000 common ones, and a quarter of a frame."""
LOG_SEARCH_THREADS = 2
"""Searches that run at a time: as many cores as the smallest node has, beside the vault's loop,
which they hold up for the time of their answer's decoding only."""
LOG_SEARCHES_MAX = 8
"""Searches that run or wait; past it the vault answers `overloaded`."""
LOG_FORGET_ROWS = 100
"""Records that one commit forgets, some tens of milliseconds for which uses wait: each is taken out
of three indexes, and what it said is overwritten."""
LOG_FORGET_AGE_MS = IDEMPOTENCY_TTL_MS
"""What is younger is not forgotten (24 h): until then the answer kept under an idempotency key
names handle and request too, and the steward and the caller may still check the record."""
LOG_DETAIL_BYTES_MAX = 1024
"""Sequence ranges in one `log.forget` entry; more ranges make more entries."""

# --- reconciling ---------------------------------------------------------------------------------

ARTEFACTS_MAX = 100_000
"""Artefacts of one run of `log reconcile`: a day's tokens of a service, held in memory."""
ARTEFACT_BYTES_MAX = 64 * 1024
"""One artefact: a token of full claims and an ML-DSA signature takes 27 KiB, a certificate less."""
ARTEFACT_SOURCE_BYTES_MAX = 64 * 1024 * 1024
"""One file or download of artefacts: as many as `ARTEFACTS_MAX` at 650 bytes."""
ARTEFACT_FILES_MAX = 10_000
"""Files under one folder: above it, somebody named the wrong one."""
ARTEFACT_FOLDERS_DEEP_MAX = 16
"""Folders in folders: far above use, and the end of one that contains itself."""
ARTEFACT_FETCH_S = 30.0
"""A whole download of artefacts, and each wait within it."""
ARTEFACT_REDIRECTS_MAX = 3
"""Redirects within the host that was named."""
LOG_RECONCILE_BODY_BYTES_MAX = 256 * 1024
"""Body of one look: some 450 common tokens, and the longest CRL that a key signs."""
LOG_RECONCILE_ITEMS_MAX = 512
"""Messages in one look: more of the common size do not fit its body."""
LOG_RECONCILE_PAGES_MAX = 10
"""Pages of 1,000 records that one look reads: a quarter of a second of one core."""
LOG_RECONCILE_HASHED_BYTES_MAX = 96 * 1024 * 1024
"""Hashed in one look, each try counted as 1 KiB more than its message: 70,000 tries of a common
token, some 0.2 s of one core."""

# --- verifying the log from storage --------------------------------------------------------------

FSCK_CHUNK = 16 * 1024
"""Records that are looked at in one read transaction, some 0.1 s: a longer one would keep the
node's write-ahead log from being reused. A multiple of the 1,024 records of a search block."""
FSCK_PROCESSES_MAX = 8
"""Processes that look at stretches of the log: beyond, the disk or the database is what they wait
for."""
FSCK_ALONE_MAX = 100_000
"""Records up to which starting more processes takes longer than they save."""
FSCK_STATE_EVERY = 8 * FSCK_CHUNK
"""Records after which a run keeps where it is: it repeats a second's work at most."""
FSCK_STATE_BYTES_MAX = 16 * 1024 * 1024
"""What is kept of a run: a million stretches of forgotten records; past it the run goes on without
keeping any more."""
FSCK_FINDINGS_MAX = 100
"""Findings that are shown; all are counted. One altered byte makes one to four."""
FSCK_ODD_FILES_MAX = 10_000
"""Partial and foreign files that are looked at: a log has some hundreds."""
FSCK_GAP_MAX = 1_000_000
"""Missing records that are looked for one by one; a record behind a greater gap is only named."""

# --- purposes ------------------------------------------------------------------------------------

DATA_BYTES_MAX = 1024 * 1024
"""Plaintext of one `wrap`, message of one `mac`: bigger data is encrypted under a wrapped key."""
DERIVED_BYTES_MAX = 1024
"""Output of one `derive`; HKDF-SHA-256 itself ends at 8,160 (RFC 5869 section 2.3)."""
JWT_CLAIMS_BYTES_MAX = 16 * 1024
"""A token's claims: what fits a header."""
LEDGER_ENTRY_BYTES_MAX = 64 * 1024
"""One ledger entry; bigger documents are entered by their hash."""
FIRMWARE_NAMES_MAX = 256
"""Image names in one firmware key's list."""
FIRMWARE_STEP_MAX = 1_000_000
"""The largest step by which a policy may let a version counter grow."""
CERT_SANS_MAX = 100
"""Names in one certificate: the limit of the public ACME authorities."""
CERT_BACKDATE_S = 300
"""How far before the vault's clock a certificate or CRL begins: what unsynchronised peers are late
by."""
SERIAL_BITS_MAX = 159
"""A serial number is positive and at most 20 octets (RFC 5280 section 4.1.2.2)."""
CSR_BYTES_MAX = 32 * 1024
"""A PKCS#10 request, PEM or DER: one of ML-DSA-87 with a hundred names stays below 20 KiB."""
RSA_BITS_MIN = 2048
"""Smallest RSA modulus of a subject: NIST SP 800-131A Rev. 2, CA/Browser Forum BR 6.1.5."""
RSA_BITS_MAX = 8192
"""Largest RSA modulus of an X.509 subject: what verifying a stranger's request may cost."""
RSA_EXPONENT_MIN = 65537
"""Smallest RSA public exponent: CA/Browser Forum BR 6.1.6, NIST SP 800-56B Rev. 2 section 6.2."""
CRL_REVOKED_MAX = 1_000
"""Entries of one CRL: 50 KB of DER. Ten times as many hold up the vault's loop for 75 ms."""
CRL_LIFETIME_MAX_S = 10 * 24 * 3600
"""From a CRL to its nextUpdate: CA/Browser Forum BR 4.9.7 lets it be ten days."""
SSH_LINE_BYTES_MAX = 8 * 1024
"""One public key line: an RSA key of 16,384 bits, OpenSSH's largest, takes 2.8 KiB."""
SSH_RSA_BITS_MIN = 2048
"""Smallest RSA modulus of an SSH subject: NIST SP 800-131A Rev. 2."""
SSH_RSA_BITS_MAX = 16384
"""Largest RSA modulus of an SSH subject: OpenSSH's SSHBUF_MAX_BIGNUM. The vault only copies it."""
SSH_PRINCIPALS_MAX = 256
"""Principals in one SSH certificate: OpenSSH's own SSHKEY_CERT_MAX_PRINCIPALS."""
SSH_PRINCIPAL_BYTES_MAX = 253
"""One principal: a host name's greatest length (RFC 1035); login names are shorter."""
SSH_KEY_ID_BYTES_MAX = 256
"""The key id of an SSH certificate: sshd writes it into a log line at each login."""
SSH_FORCE_COMMAND_BYTES_MAX = 1024
"""A forced command: a path and its arguments; longer ones belong into a script."""
SSH_SOURCE_ADDRESSES_MAX = 64
"""Networks in an SSH certificate's ``source-address``: sshd reads them all at each login."""
TLS_TRANSCRIPT_BYTES = (32, 48)
"""Transcript hashes of TLS 1.3: SHA-256 and SHA-384 (RFC 8446 appendix B.4)."""
