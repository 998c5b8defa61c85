//! FXSAVE and the XSAVE family.
