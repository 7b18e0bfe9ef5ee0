"""What building rnncells needs to decide: which torch, and whether the machine can compile."""
