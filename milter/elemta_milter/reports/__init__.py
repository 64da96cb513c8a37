"""Reports: who asked to hear about mail in the name of his domain, and what do we tell him?

Decisions of the journal are counted (`counting`, `counts`), become a document (`document`) for each domain and window
(`windows`), and go as mail (`mail`, `submission`) to the addresses that were verified (`destinations`).  `outgoing`
remembers what was sent and who takes no more, `collecting` and `sending` do all of this for the keeper and for
`elemta dmarc` (`command`).  Nothing here runs while mail is waiting.

RFC 9990 (aggregate reports), RFC 9991 (failure reports).
"""
