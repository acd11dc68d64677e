"""Pure wrappers of pyca/cryptography, its sole importer; raw private-key work is in ``hazmat``."""
