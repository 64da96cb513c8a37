"""Links: what does a text show, and where do its links lead?  Without configuration, network or daemon."""
