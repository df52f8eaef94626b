"""In place of pandas, which only Ray needs: its import takes each process one to two seconds.

Where it is installed, pyarrow imports it for the first array that is made, and scikit-learn at its
start. A plain installation of the project does not have it.
"""

raise ModuleNotFoundError("No module named 'pandas'", name="pandas")
