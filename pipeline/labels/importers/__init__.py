"""One importer per format of annotation exports."""
