"""The exact noisy twin of a device: expectation values and gradients without sampling."""
