"""Tiny files in the layouts in which people hold licensed pose datasets.

One module per dataset, written from what is published of its files and independently of the
loaders in `data_prep/`, whose tests use it:

    from tests.layouts import humaneva

    truth = humaneva.write(folder)                  # good files, and what a reader must find there
    humaneva.write(folder, units=1000.0, offset=3)  # good files with something wrong in them
    humaneva.DAMAGES["missing key 3d"].apply(folder)  # breaks what `write` wrote
    humaneva.DAMAGES["missing key 3d"].names        # what the error message has to name

`write` of `h36m` wants a form (`cdf`, `hdf5`, `npz`) too, and its `DAMAGES` are by form. Damages
are made for what `write` writes by default. The tests run from the root of the repository, which
pytest puts on the path. The modules' docstrings state the layouts and where they are published.
"""
