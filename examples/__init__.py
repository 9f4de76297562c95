"""Scripts that show how qrun is used. A package, since others (opacus) install one of that name."""
