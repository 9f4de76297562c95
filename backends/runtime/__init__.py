"""IBM Runtime: real devices through the service, and the Runtime's local testing mode, behind one Executor."""
