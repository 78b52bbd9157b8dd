"""Files in: DICOM, NIfTI, NRRD, MHA, masks and ROI files."""
