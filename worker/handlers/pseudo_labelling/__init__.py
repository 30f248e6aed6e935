"""The jobs of a pseudo-labelling: looks at parts of the pictures (`look`), boxes and their dataset (`teach`), the end (`pseudo_label`)."""
