//! Address translation: hashed page tables and radix trees.
