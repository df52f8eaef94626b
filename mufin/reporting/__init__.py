"""What the report shows: its sections, claims and drawings, the page; and README's picture."""
