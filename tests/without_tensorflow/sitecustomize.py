"""Python runs this when it starts: with this folder in PYTHONPATH no process finds TensorFlow, as where it is not
installed, nor do those that it starts.
"""

import sys


class Without:
    """A finder of modules that does not find TensorFlow."""

    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, *arguments):
        return None if name.split(".")[0] == "tensorflow" else self.finder.find_spec(name, *arguments)


sys.meta_path[:] = map(Without, sys.meta_path)
