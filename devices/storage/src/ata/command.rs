//! Command codes (ACS-3 chapter 7 and annex B).

pub const NOP: u8 = 0x00;
pub const DATA_SET_MANAGEMENT: u8 = 0x06;
pub const DEVICE_RESET: u8 = 0x08;
pub const RECALIBRATE: u8 = 0x10;
pub const READ_SECTORS: u8 = 0x20;
pub const READ_SECTORS_NO_RETRY: u8 = 0x21;
pub const READ_SECTORS_EXT: u8 = 0x24;
pub const READ_DMA_EXT: u8 = 0x25;
pub const READ_NATIVE_MAX_EXT: u8 = 0x27;
pub const READ_MULTIPLE_EXT: u8 = 0x29;
pub const READ_LOG_EXT: u8 = 0x2f;
pub const WRITE_SECTORS: u8 = 0x30;
pub const WRITE_SECTORS_NO_RETRY: u8 = 0x31;
pub const WRITE_SECTORS_EXT: u8 = 0x34;
pub const WRITE_DMA_EXT: u8 = 0x35;
pub const WRITE_MULTIPLE_EXT: u8 = 0x39;
pub const WRITE_DMA_FUA_EXT: u8 = 0x3d;
pub const READ_VERIFY: u8 = 0x40;
pub const READ_VERIFY_NO_RETRY: u8 = 0x41;
pub const READ_VERIFY_EXT: u8 = 0x42;
pub const READ_LOG_DMA_EXT: u8 = 0x47;
pub const READ_FPDMA_QUEUED: u8 = 0x60;
pub const WRITE_FPDMA_QUEUED: u8 = 0x61;
pub const NCQ_NON_DATA: u8 = 0x63;
pub const SEND_FPDMA_QUEUED: u8 = 0x64;
pub const RECEIVE_FPDMA_QUEUED: u8 = 0x65;
pub const SEEK: u8 = 0x70;
pub const EXECUTE_DEVICE_DIAGNOSTIC: u8 = 0x90;
pub const INITIALIZE_DEVICE_PARAMETERS: u8 = 0x91;
pub const STANDBY_IMMEDIATE_OLD: u8 = 0x94;
pub const IDLE_IMMEDIATE_OLD: u8 = 0x95;
pub const STANDBY_OLD: u8 = 0x96;
pub const IDLE_OLD: u8 = 0x97;
pub const CHECK_POWER_MODE_OLD: u8 = 0x98;
pub const SLEEP_OLD: u8 = 0x99;
pub const PACKET: u8 = 0xa0;
pub const IDENTIFY_PACKET_DEVICE: u8 = 0xa1;
pub const SMART: u8 = 0xb0;
pub const READ_MULTIPLE: u8 = 0xc4;
pub const WRITE_MULTIPLE: u8 = 0xc5;
pub const SET_MULTIPLE_MODE: u8 = 0xc6;
pub const READ_DMA: u8 = 0xc8;
pub const READ_DMA_NO_RETRY: u8 = 0xc9;
pub const WRITE_DMA: u8 = 0xca;
pub const WRITE_DMA_NO_RETRY: u8 = 0xcb;
pub const WRITE_MULTIPLE_FUA_EXT: u8 = 0xce;
pub const STANDBY_IMMEDIATE: u8 = 0xe0;
pub const IDLE_IMMEDIATE: u8 = 0xe1;
pub const STANDBY: u8 = 0xe2;
pub const IDLE: u8 = 0xe3;
pub const READ_BUFFER: u8 = 0xe4;
pub const CHECK_POWER_MODE: u8 = 0xe5;
pub const SLEEP: u8 = 0xe6;
pub const FLUSH_CACHE: u8 = 0xe7;
pub const WRITE_BUFFER: u8 = 0xe8;
pub const FLUSH_CACHE_EXT: u8 = 0xea;
pub const IDENTIFY_DEVICE: u8 = 0xec;
pub const SET_FEATURES: u8 = 0xef;
pub const READ_NATIVE_MAX: u8 = 0xf8;

/// Is this a command with a tag, of native command queuing?
#[must_use]
pub fn is_queued(code: u8) -> bool {
    matches!(code, READ_FPDMA_QUEUED | WRITE_FPDMA_QUEUED | NCQ_NON_DATA | SEND_FPDMA_QUEUED | RECEIVE_FPDMA_QUEUED)
}
