"""The typed configuration: dataclasses, bounds, composition."""
