"""Import experiments of the original code of Göltz et al. (github.com/JulianGoeltz/fastAndDeep).

``translate`` turns a config of the original into one of ours, ``run_folder.import_folder`` a result folder: config,
trained network and, as a check, the spike times that it saved.
"""
