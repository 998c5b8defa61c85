//! Feature bits as masks.

use virtio_bindings::{virtio_blk, virtio_config, virtio_net, virtio_ring};

macro_rules! masks {
    ($($name:ident = $module:ident::$bit:ident;)*) => {
        $(pub const $name: u64 = 1 << $module::$bit;)*
    };
}

masks! {
    VERSION_1 = virtio_config::VIRTIO_F_VERSION_1;
    ACCESS_PLATFORM = virtio_config::VIRTIO_F_ACCESS_PLATFORM;
    RING_PACKED = virtio_config::VIRTIO_F_RING_PACKED;
    INDIRECT_DESC = virtio_ring::VIRTIO_RING_F_INDIRECT_DESC;
    EVENT_IDX = virtio_ring::VIRTIO_RING_F_EVENT_IDX;
    BLK_SEG_MAX = virtio_blk::VIRTIO_BLK_F_SEG_MAX;
    BLK_RO = virtio_blk::VIRTIO_BLK_F_RO;
    BLK_SIZE = virtio_blk::VIRTIO_BLK_F_BLK_SIZE;
    BLK_FLUSH = virtio_blk::VIRTIO_BLK_F_FLUSH;
    BLK_TOPOLOGY = virtio_blk::VIRTIO_BLK_F_TOPOLOGY;
    BLK_CONFIG_WCE = virtio_blk::VIRTIO_BLK_F_CONFIG_WCE;
    BLK_MQ = virtio_blk::VIRTIO_BLK_F_MQ;
    BLK_DISCARD = virtio_blk::VIRTIO_BLK_F_DISCARD;
    BLK_WRITE_ZEROES = virtio_blk::VIRTIO_BLK_F_WRITE_ZEROES;
    NET_CSUM = virtio_net::VIRTIO_NET_F_CSUM;
    NET_GUEST_CSUM = virtio_net::VIRTIO_NET_F_GUEST_CSUM;
    NET_MTU = virtio_net::VIRTIO_NET_F_MTU;
    NET_MAC = virtio_net::VIRTIO_NET_F_MAC;
    NET_GUEST_TSO4 = virtio_net::VIRTIO_NET_F_GUEST_TSO4;
    NET_GUEST_TSO6 = virtio_net::VIRTIO_NET_F_GUEST_TSO6;
    NET_HOST_TSO4 = virtio_net::VIRTIO_NET_F_HOST_TSO4;
    NET_HOST_TSO6 = virtio_net::VIRTIO_NET_F_HOST_TSO6;
    NET_MRG_RXBUF = virtio_net::VIRTIO_NET_F_MRG_RXBUF;
    NET_STATUS = virtio_net::VIRTIO_NET_F_STATUS;
    NET_CTRL_VQ = virtio_net::VIRTIO_NET_F_CTRL_VQ;
    NET_CTRL_RX = virtio_net::VIRTIO_NET_F_CTRL_RX;
    NET_CTRL_RX_EXTRA = virtio_net::VIRTIO_NET_F_CTRL_RX_EXTRA;
    NET_CTRL_GUEST_OFFLOADS = virtio_net::VIRTIO_NET_F_CTRL_GUEST_OFFLOADS;
    NET_CTRL_MAC_ADDR = virtio_net::VIRTIO_NET_F_CTRL_MAC_ADDR;
}

// The binding crate lacks the balloon (virtio 1.2, 5.5.3).
pub const BALLOON_STATS_VQ: u64 = 1 << 1;
pub const BALLOON_DEFLATE_ON_OOM: u64 = 1 << 2;
pub const BALLOON_REPORTING: u64 = 1 << 5;

// Nor has it the console (5.3.3).
pub const CONSOLE_MULTIPORT: u64 = 1 << 1;
pub const CONSOLE_EMERG_WRITE: u64 = 1 << 2;
