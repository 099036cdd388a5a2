//! Scarce hardware resources. To come.
