//! VNC authentication (RFC 6143, 7.2.2): the client encrypts a challenge with the password. It keeps strangers away who do not listen,
//! and no others.

use des::Des;
use des::cipher::{Array, BlockCipherEncrypt, KeyInit};
use std::time::SystemTime;

/// Bytes of a challenge, and of its answer.
pub(super) const CHALLENGE: usize = 16;

/// The password that clients must know, if there is one, and until when it holds.
#[derive(Default)]
pub(super) struct Password {
    pub text: Option<String>,
    pub expires: Option<SystemTime>,
}

impl Password {
    /// Is it the right answer to a challenge? Without a password none is.
    pub fn proves(&self, challenge: &[u8; CHALLENGE], answer: &[u8; CHALLENGE], now: SystemTime) -> bool {
        let Some(text) = &self.text else { return false };
        if self.expires.is_some_and(|end| now >= end) {
            return false;
        }
        let expected = encrypt(text, challenge);
        // As long for every wrong one.
        expected.iter().zip(answer).fold(0, |all, (a, b)| all | (a ^ b)) == 0
    }
}

/// The first eight bytes of the password are the key, each from its last bit to its first.
pub(super) fn encrypt(password: &str, challenge: &[u8; CHALLENGE]) -> [u8; CHALLENGE] {
    let mut key = [0; 8];
    for (k, byte) in key.iter_mut().zip(password.bytes()) {
        *k = byte.reverse_bits();
    }
    let cipher = Des::new(&Array::from(key));
    let mut out = *challenge;
    for half in out.chunks_exact_mut(8) {
        let mut block = Array::from([0; 8]);
        block.copy_from_slice(half);
        cipher.encrypt_block(&mut block);
        half.copy_from_slice(&block);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn proofs() {
        // NIST SP 800-17, table A.2: the key 8001010101010101, whose lowest bits do not count, encrypts zeros.
        let known = [0x95, 0xa8, 0xd7, 0x28, 0x13, 0xda, 0xa9, 0x4d];
        assert_eq!(encrypt("\u{1}", &[0; CHALLENGE]), [known, known].concat()[..]);
        let challenge: [u8; CHALLENGE] = std::array::from_fn(|n| n as u8);
        let answer = encrypt("secret", &challenge);
        assert_ne!(answer[..8], answer[8..]);
        // No more than eight bytes count.
        assert_eq!(encrypt("12345678", &challenge), encrypt("123456789", &challenge));
        let now = SystemTime::now();
        let mut password = Password::default();
        assert!(!password.proves(&challenge, &answer, now));
        password.text = Some("secret".to_owned());
        assert!(password.proves(&challenge, &answer, now));
        assert!(!password.proves(&challenge, &encrypt("Secret", &challenge), now));
        password.expires = Some(now + Duration::from_secs(1));
        assert!(password.proves(&challenge, &answer, now));
        assert!(!password.proves(&challenge, &answer, now + Duration::from_secs(1)));
    }
}
