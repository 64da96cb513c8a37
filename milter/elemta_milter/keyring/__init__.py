"""Keyring: which DKIM keys has a domain, how far has each come, and what is to be done next?

`ring` is the directory of one domain's keys with their states, `rotation` says what may follow what, `making` makes
keys, `publication` compares them with the DNS, `zone` writes records for it, `duties` says what waits for the
administrator, `watch` tells the log and the metrics, and `command` is `elemta dkim`, with `shop` at its back.
"""
