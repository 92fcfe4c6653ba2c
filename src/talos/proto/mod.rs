//! The messages and services of the Talos API, made from `proto/` by `scripts/protos` and committed. Do not edit: a test
//! compares each file with what it was made as and with the protos.

/// What the messages of several services share.
#[expect(missing_docs, reason = "made from proto/common.proto, which says what needs saying")]
pub mod common {
    include!("common.rs");
}

/// What a node does and what is known of it.
#[expect(missing_docs, reason = "made from proto/machine.proto, which says what needs saying")]
#[expect(clippy::allow_attributes_without_reason, reason = "tonic's generator writes them")]
pub mod machine {
    include!("machine.rs");
}

/// Google's own packages.
pub mod google {
    /// The status of gRPC as a message.
    #[expect(missing_docs, reason = "made from proto/rpc.proto")]
    pub mod rpc {
        include!("google_rpc.rs");
    }
}

/// The state of a node as resources.
pub mod cosi {
    /// The one service and its messages.
    #[expect(missing_docs, reason = "made from proto/cosi.proto, which says what needs saying")]
    #[expect(clippy::allow_attributes_without_reason, reason = "tonic's generator writes them")]
    pub mod resource {
        include!("cosi_resource.rs");
    }
}

/// Specs that are read in their binary form.
#[expect(missing_docs, reason = "made from proto/definitions.proto")]
pub mod definitions {
    include!("talos_resource_definitions_config.rs");
}
