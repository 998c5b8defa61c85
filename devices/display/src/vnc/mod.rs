//! VNC: the RFB protocol (RFC 6143). An implementation of its own, since no crate in use offers a server without an
//! asynchronous runtime.
