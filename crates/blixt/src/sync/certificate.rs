//! The controller's certificate: made by the process itself, never stored, and trusted because the certificate of its
//! authority is published where only the controller may write.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use tonic::transport::Identity;

use super::SERVER_NAME;

/// A certificate is replaced long before it ends.
pub const LIFE: Duration = Duration::from_secs(30 * DAY);
/// When it is replaced.
pub const RENEW_AFTER: Duration = Duration::from_secs(10 * DAY);
/// Clocks differ: it begins a day before it is made.
const BEFORE: Duration = Duration::from_secs(DAY);
const DAY: u64 = 24 * 60 * 60;

/// A server's certificate and its authority.
pub struct Certificate {
    /// What the server shows.
    pub identity: Identity,
    /// What clients trust, PEM.
    pub authority: String,
}

/// Makes a certificate for [`SERVER_NAME`], with an authority of its own whose key is forgotten at once.
pub fn make() -> Result<Certificate, rcgen::Error> {
    let now = std::time::SystemTime::now();
    let valid = |params: &mut CertificateParams, name: &str| {
        params.not_before = (now - BEFORE).into();
        params.not_after = (now + LIFE).into();
        params.distinguished_name.push(DnType::CommonName, name);
    };
    let mut authority = CertificateParams::default();
    valid(&mut authority, "Blixt authority of one controller");
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;

    let mut server = CertificateParams::new([SERVER_NAME.to_owned()])?;
    valid(&mut server, SERVER_NAME);
    server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    let certificate = server.signed_by(&key, &authority)?;
    Ok(Certificate {
        identity: Identity::from_pem(certificate.pem(), key.serialize_pem()),
        authority: authority.pem(),
    })
}
