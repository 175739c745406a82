//! Coordinates and their names in Secrets Manager. Coordinates are used unchanged; external names
//! and ARNs are checked.

use std::fmt;

use secret_persistence_core::{Coordinate, Error, ErrorKind, Result};

use crate::arn::Arn;

/// The longest name of a secret in characters.
/// <https://docs.aws.amazon.com/secretsmanager/latest/userguide/reference_limits.html>
const MAX_NAME_CHARS: usize = 512;

/// An AWS region with a valid name, so that it cannot redirect requests to another host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Region(String);

impl Region {
    /// Parses names like `us-east-1`: words of lowercase letters, then a number.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut parts = text.split('-');
        let first = parts.next().unwrap_or_default();
        let last = parts.next_back().unwrap_or_default();
        let words: Vec<&str> = parts.collect();
        let word = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase());
        let number = |part: &str| {
            (1..=2).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
        };
        if text.len() <= 32
            && (2..=4).contains(&first.len())
            && word(first)
            && (1..=3).contains(&words.len())
            && words.iter().all(|part| word(part))
            && number(last)
        {
            return Ok(Self(text.to_owned()));
        }
        let message = if text.is_empty() {
            "the AWS region is missing"
        } else {
            "the AWS region is not valid"
        };
        Err(Error::new(ErrorKind::InvalidConfig, message).with_hint(
            "set AWS_SECRET_MANAGER_REGION, or the host of the URL as in `aws://us-east-1`, to the \
             region of the secrets",
        ))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The partition of the region, as in ARNs.
    /// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference-arns.html>
    pub(crate) fn partition(&self) -> &'static str {
        // Longest first: `us-isob-` also begins with `us-iso`.
        const PARTITIONS: [(&str, &str); 8] = [
            ("cn-", "aws-cn"),
            ("eu-isoe-", "aws-iso-e"),
            ("eusc-", "aws-eusc"),
            ("us-gov-", "aws-us-gov"),
            ("us-isob-", "aws-iso-b"),
            ("us-isof-", "aws-iso-f"),
            ("us-iso-", "aws-iso"),
            ("", "aws"),
        ];
        PARTITIONS
            .into_iter()
            .find(|(prefix, _)| self.0.starts_with(prefix))
            .map_or("aws", |(_, partition)| partition)
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The `SecretId` of a coordinate.
///
/// Managed coordinates are valid names. An external one is a name or an ARN of this region; core
/// has already refused every spelling that could mean a managed secret.
pub(crate) fn secret_id<'a>(coordinate: &'a Coordinate, region: &Region) -> Result<&'a str> {
    let id = coordinate.as_str();
    if coordinate.managed().is_some() {
        return Ok(id);
    }
    let checked = if id
        .get(..4)
        .is_some_and(|start| start.eq_ignore_ascii_case("arn:"))
    {
        check_arn(id, region)
    } else {
        check_name(id)
    };
    checked
        .map(|()| id)
        .map_err(|error| error.with_coordinate(coordinate.shared()))
}

/// Whether a secret with this name and ARN is the requested one.
///
/// A requested ARN may lack the six random characters that Secrets Manager appends.
/// <https://docs.aws.amazon.com/secretsmanager/latest/userguide/troubleshoot.html#ARN_secretnamehyphen>
pub(crate) fn answers(asked: &str, name: Option<&str>, arn: Option<&str>) -> bool {
    name == Some(asked)
        || arn.is_some_and(|arn| {
            arn == asked
                || arn.strip_prefix(asked).is_some_and(|rest| {
                    rest.len() == 7 && rest.starts_with('-') && asked.starts_with("arn:")
                })
        })
}

/// Whether a listing with this prefix can contain a managed name.
pub(crate) fn is_name_prefix(prefix: &str) -> bool {
    prefix.len() <= MAX_NAME_CHARS
        && prefix
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

fn check_arn(arn: &str, region: &Region) -> Result<()> {
    let invalid = |message: &'static str| Err(Error::new(ErrorKind::InvalidCoordinate, message));
    let parsed = Arn::parse(arn).filter(|arn| arn.service == "secretsmanager");
    let Some((arn, name)) = parsed
        .and_then(|arn| Some((arn, arn.resource.strip_prefix("secret:")?)))
        .filter(|(_, name)| !name.contains(':'))
    else {
        return Err(Error::new(
            ErrorKind::InvalidCoordinate,
            "this is not the ARN of a secret",
        )
        .with_hint(
            "write arn:<partition>:secretsmanager:<region>:<account>:secret:<name>-<6 characters>, \
             with an account of 12 digits and without a JSON key or version at its end",
        ));
    };
    if arn.partition != region.partition() {
        return invalid("the ARN is in another AWS partition than this store");
    }
    if arn.region != region.as_str() {
        return Err(Error::new(
            ErrorKind::InvalidCoordinate,
            format!("the ARN is in another AWS region than this store, which is in {region}"),
        )
        .with_hint("replicate the secret into this region, or refer to it by another storage"));
    }
    if arn.account.is_empty() {
        return invalid("the ARN's account does not have 12 digits");
    }
    check_name(name)
}

/// Secrets that other AWS services manage have a `!` in their names, such as `rds!db-…`.
fn check_name(name: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"/_+=.@-!".contains(&byte);
    if (1..=MAX_NAME_CHARS).contains(&name.len()) && name.bytes().all(allowed) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidCoordinate,
        "Secrets Manager names must have 1 to 512 characters of A-Z, a-z, 0-9 and /_+=.@-!",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region() -> Region {
        Region::parse("eu-west-1").unwrap()
    }

    #[test]
    fn regions_follow_the_grammar_and_know_their_partition() {
        for (text, partition) in [
            ("us-east-1", "aws"),
            ("ap-southeast-5", "aws"),
            ("us-gov-west-1", "aws-us-gov"),
            ("cn-north-1", "aws-cn"),
            ("us-iso-east-1", "aws-iso"),
            ("us-isob-east-1", "aws-iso-b"),
            ("eusc-de-east-1", "aws-eusc"),
        ] {
            let region = Region::parse(text).unwrap();
            assert_eq!((region.as_str(), region.partition()), (text, partition));
        }
        for text in [
            "",
            "us",
            "us-east",
            "us-1",
            "US-EAST-1",
            "us-east-1.evil.example",
            "us-east-1@evil",
            "us-east-1/x",
            "us-east-123",
            "us--1",
            " us-east-1",
            "us-east-1\n",
            "global",
            "eu-west-one",
        ] {
            let error = Region::parse(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{text:?}");
            assert!(error.hint().unwrap().contains("AWS_SECRET_MANAGER_REGION"));
        }
    }

    #[test]
    fn names_and_arns_of_others_are_kept_verbatim() {
        for name in [
            "team/db",
            "rds!db-1234",
            "a+b=c.d@e",
            "db-AbCdEf",
            "arn:aws:secretsmanager:eu-west-1:123456789012:secret:team/db-AbCdEf",
            "arn:aws:secretsmanager:eu-west-1:123456789012:secret:team/db",
            "airbyt_x",
            "my-airbyte_secret",
        ] {
            let coordinate = Coordinate::parse(name).unwrap();
            assert_eq!(secret_id(&coordinate, &region()).unwrap(), name);
        }
    }

    /// Every spelling with which Secrets Manager would find a managed secret, and every name that
    /// it refuses: core or this file rejects them before any request. Otherwise a managed secret
    /// could be read (but never written) as an external one.
    #[test]
    fn aliases_of_managed_secrets_and_foreign_places_are_refused() {
        let arn = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:";
        for name in [
            // Aliases.
            format!("{arn}airbyte_workspace_1_secret_2_v1-AbCdEf"),
            format!("{arn}airbyte_workspace_1_secret_2_v1"),
            format!("{arn}airbyte_workspace_1_secret_2"),
            format!("{arn}airbyte_workspace_1_secret_2_v01"),
            "arn:aws-cn:secretsmanager:cn-north-1:123456789012:secret:airbyte_x_v1-AbCdEf".into(),
            "ARN:AWS:SECRETSMANAGER:eu-west-1:123456789012:SECRET:AIRBYTE_X_V1".into(),
            "airbyte_workspace_1_secret_2".into(),
            "airbyte-workspace-1-secret-2-v1".into(),
            "Airbyte_workspace_1_secret_2_v1".into(),
            "airbyte_x_v1-AbCdEf".into(),
            "airbyte_x_v01".into(),
            "folder/airbyte_x_v1".into(),
            // Other places.
            "arn:aws:secretsmanager:us-east-1:123456789012:secret:team/db-AbCdEf".into(),
            "arn:aws-cn:secretsmanager:eu-west-1:123456789012:secret:team/db-AbCdEf".into(),
            "arn:aws:ssm:eu-west-1:123456789012:parameter/team/db".into(),
            "arn:aws:secretsmanager:eu-west-1:12345:secret:team/db-AbCdEf".into(),
            "arn:aws:secretsmanager:eu-west-1:123456789012:secret:".into(),
            format!("{arn}team/db-AbCdEf:password::"),
            "ARN:aws:secretsmanager:eu-west-1:123456789012:secret:team/db".into(),
            // Names that Secrets Manager refuses, and path tricks.
            "team db".into(),
            "ключ".into(),
            "team:db".into(),
            "team/../db".into(),
            "team*".into(),
            "team/db?x".into(),
            "x".repeat(513),
        ] {
            let refused = Coordinate::parse(&name)
                .and_then(|coordinate| secret_id(&coordinate, &region()).map(str::to_owned));
            assert_eq!(
                refused.unwrap_err().kind(),
                ErrorKind::InvalidCoordinate,
                "{name}"
            );
        }
    }

    #[test]
    fn answers_are_matched_by_name_by_arn_and_by_arn_without_its_suffix() {
        let arn = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:team/db-AbCdEf";
        for (asked, expected) in [
            ("team/db", true),
            (arn, true),
            (&arn[..arn.len() - 7], true),
            (&arn[..arn.len() - 6], false),
            (&arn[..arn.len() - 8], false),
            ("team/d", false),
            ("db", false),
        ] {
            assert_eq!(
                answers(asked, Some("team/db"), Some(arn)),
                expected,
                "{asked}"
            );
        }
        assert!(!answers("team/db", None, None));
    }
}
