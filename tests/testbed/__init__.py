"""Real OpenSSH workers on loopback for the tests; `sshd.py` describes what they offer, `fixtures.py` hands them to pytest."""
