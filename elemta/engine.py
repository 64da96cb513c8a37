"""The engine: one mail is seen by every check, judged by the rules, and becomes a decision.

This is the shape that the daemons, `explain` and the tests build on (the body follows):

    engine = Engine(policy, tools, observers)      # in the worker, after the fork
    await engine.open()
    case = engine.case()                           # one mail; both daemons
    case.start(envelope)                           # milter, at MAIL: early checks run in the background
    decision = await case.message(message)         # milter, at the end of the message
    decision = await case.recipient(envelope)      # policy service, for each RCPT TO
    case.cancel()                                  # the client went away
    await engine.close()

A `Decision` always comes: trouble of any check is inside it.  Nothing raises but cancellation.
"""
