"""Where cryptography lives: sealing secrets with the keyring, and the CA of a bucket with the certificates it issues."""
