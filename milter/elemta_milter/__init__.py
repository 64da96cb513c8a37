"""The milter daemon: whole messages from Postfix, judged by the engine, changed as the verdict says."""
