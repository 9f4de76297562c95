"""The twin behind Qiskit's and torch's interfaces."""
