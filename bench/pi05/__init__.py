"""Pi0.5's two MLP stacks as a benchmark; bench/pi05_mlp.py is its command line."""
