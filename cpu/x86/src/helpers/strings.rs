pub const TABLE: &[rhea_ir::HelperDesc] = &[];
