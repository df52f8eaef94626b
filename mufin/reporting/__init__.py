"""What the report shows, from plain arrays: breakdowns, movement, classifiers, claims, drawings and the page."""
