"""Every bound, with its unit in its name and its reason beside it (invariant I11).

A bound is checked before the work it bounds. Past it the answer is an early refusal that names it.
"""

from __future__ import annotations

__all__ = [
    "ADMIN_BODY_BYTES_MAX",
    "BATCH_ITEMS_MAX",
    "BEST_EFFORT_FLUSH_S",
    "BODY_BYTES_MAX",
    "CERT_BACKDATE_S",
    "CERT_SANS_MAX",
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
    "FIRMWARE_NAMES_MAX",
    "FIRMWARE_STEP_MAX",
    "FRAME_BYTES_MAX",
    "FRAME_REQUESTS_MAX",
    "FRONT_IN_FLIGHT_MAX",
    "FRONT_IN_FLIGHT_MIN",
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
    "LABELS_MAX",
    "LABEL_BYTES_MAX",
    "LEDGER_ENTRY_BYTES_MAX",
    "LIST_ITEMS_MAX",
    "NAME_BYTES_MAX",
    "OPENED_KEYS_MAX",
    "PROOF_SKEW_MS",
    "QUEUE_DELAY_TARGET_S",
    "RATE_BUCKETS_MAX",
    "REASON_BYTES_MAX",
    "REQUEST_TIMEOUT_S",
    "RESERVATION_LIFE_MS",
    "RESERVATION_USES",
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
    "TLS_TRANSCRIPT_BYTES",
    "VAULT_QUEUE_MAX",
    "VERSION_USES_MAX",
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
BEST_EFFORT_FLUSH_S = 0.05
"""Within this the record of a best-effort use follows its answer (I2)."""

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
