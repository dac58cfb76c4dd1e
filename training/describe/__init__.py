"""Four elements of a scene to pairs of descriptions, one anomalous and one normal."""
