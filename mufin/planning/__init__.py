"""What a run costs before it starts: operations, bytes, memory and hours of each stage."""
