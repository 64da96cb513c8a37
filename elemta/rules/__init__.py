"""Rules: what shall happen to a mail of which this was seen?

`catalogue` names every fact, `conditions` and `templates` ask them and print them, `sets` hold many values, `compiler`
makes `ruleset`s of the YAML, and `judge` is the pure function that turns facts and findings into a verdict.
"""
