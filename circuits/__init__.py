"""What is run on qubits: circuits, and the compiler that turns them into ISA circuits of a device."""
