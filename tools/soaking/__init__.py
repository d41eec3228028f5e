"""What tools/soak.py does to runs, a disturbance per file, and what it counts."""
