"""The policy service: what shall Postfix answer to this RCPT TO?  `python -m elemta_policyd --config FILE`."""
