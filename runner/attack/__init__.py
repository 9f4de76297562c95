"""The federation under attack, simulated without chain and store: who is found out, how soon, and what it costs."""
