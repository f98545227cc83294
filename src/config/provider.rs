//! Where configurations are read from: files, and `file:`, `classpath:`, `http:` and `https:` URIs.

use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use thiserror::Error;

/// No configuration is larger; a server or a device file that goes on for ever is cut off here.
const MAX_BYTES: u64 = 16 << 20;
const HTTP_TIMEOUT: Duration = Duration::from_secs(30);

/// A configuration that could not be read. The first words are Flume's.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// A file.
    #[error("Unable to read file {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something under a URI.
    #[error("Unable to access URI {uri}: {why}")]
    Uri {
        /// Which.
        uri: String,
        /// Why.
        why: String,
    },
    /// A file name whose extension Flume reserves for other formats.
    #[error("File extension type {extension} is unsupported")]
    Extension {
        /// The text after the first dot.
        extension: String,
    },
}

/// For `http:` and `https:`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    /// The user name.
    pub user: String,
    /// The password.
    pub password: String,
}

/// One configuration to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A file.
    File(PathBuf),
    /// A name that is looked for in the directories of the class path, which begins with the one of `--conf`.
    ClassPath {
        /// The name.
        name: String,
        /// The directories.
        directories: Vec<PathBuf>,
    },
    /// An `http:` or `https:` address.
    Http {
        /// The address.
        uri: String,
        /// For servers that ask.
        credentials: Option<Credentials>,
    },
}

impl Location {
    /// Reads a `--conf-uri`.
    pub fn from_uri(uri: &str, directories: &[PathBuf], credentials: Option<&Credentials>) -> Result<Self, ReadError> {
        let (scheme, rest) = uri.split_once(':').unwrap_or(("file", uri));
        let location = match scheme.to_ascii_lowercase().as_str() {
            "file" => Self::File(rest.strip_prefix("//").unwrap_or(rest).into()),
            "classpath" => {
                Self::ClassPath { name: rest.trim_start_matches('/').to_owned(), directories: directories.to_vec() }
            }
            "http" | "https" => Self::Http { uri: uri.to_owned(), credentials: credentials.cloned() },
            _ => {
                let why = "expected a file:, classpath:, http: or https: URI".to_owned();
                return Err(ReadError::Uri { uri: uri.to_owned(), why });
            }
        };
        // Flume takes what follows the first dot of the path for the type.
        let name = rest.rsplit('/').next().unwrap_or_default();
        match name.split_once('.') {
            Some((_, extension @ ("json" | "yaml" | "yml" | "xml"))) => {
                Err(ReadError::Extension { extension: extension.to_owned() })
            }
            _ => Ok(location),
        }
    }

    /// The name for messages.
    pub fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::ClassPath { name, .. } => format!("classpath:{name}"),
            Self::Http { uri, .. } => uri.clone(),
        }
    }

    fn path(&self) -> Option<PathBuf> {
        match self {
            Self::File(path) => Some(path.clone()),
            Self::ClassPath { name, directories } => {
                let paths = directories.iter().map(|directory| directory.join(name));
                paths.clone().find(|path| path.exists()).or_else(|| Some(PathBuf::from(name)))
            }
            Self::Http { .. } => None,
        }
    }

    /// Reads the text. Blocks.
    pub fn read(&self) -> Result<Vec<u8>, ReadError> {
        match (self, self.path()) {
            (_, Some(path)) => read_file(&path).map_err(|source| ReadError::File { path, source }),
            (Self::Http { uri, credentials }, _) => {
                read_http(uri, credentials.as_ref()).map_err(|why| ReadError::Uri { uri: uri.clone(), why })
            }
            (other, None) => Err(ReadError::Uri { uri: other.name(), why: "it has no path".to_owned() }),
        }
    }

    /// What tells one version of a file from another: its time, length and inode. `None` for what has to be read to be
    /// compared, and for a file that is not there.
    pub fn version(&self) -> Option<(SystemTime, u64, u64)> {
        let meta = fs::metadata(self.path()?).ok()?;
        Some((meta.modified().ok()?, meta.len(), meta.ino()))
    }
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let length = fs::File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut text)? as u64;
    if length > MAX_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 16 MiB"));
    }
    Ok(text)
}

fn read_http(uri: &str, credentials: Option<&Credentials>) -> Result<Vec<u8>, String> {
    let agent: ureq::Agent =
        ureq::Agent::config_builder().timeout_global(Some(HTTP_TIMEOUT)).http_status_as_error(false).build().into();
    let mut request = agent.get(uri);
    if let Some(Credentials { user, password }) = credentials {
        request =
            request.header("Authorization", format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}"))));
    }
    let mut response = request.call().map_err(|error| error.to_string())?;
    match response.status().as_u16() {
        200 => response.body_mut().with_config().limit(MAX_BYTES).read_to_vec().map_err(|error| error.to_string()),
        401 => Err("Authorization failed".to_owned()),
        404 => Err(format!("Unable to locate {uri}")),
        other => Err(format!("the server answered with status {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris() {
        let uri = |text| Location::from_uri(text, &[], None);
        assert_eq!(uri("file:///etc/a.conf").expect("a file"), Location::File("/etc/a.conf".into()));
        assert_eq!(uri("conf/a.properties").expect("a file"), Location::File("conf/a.properties".into()));
        assert!(matches!(uri("http://h/a.conf"), Ok(Location::Http { .. })));
        assert!(matches!(uri("file:///etc/a.json"), Err(ReadError::Extension { .. })));
        assert!(matches!(uri("ftp://h/a"), Err(ReadError::Uri { .. })));
    }
}
