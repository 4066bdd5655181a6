//! AWS partitions, with their regions and STS host names.
//!
//! Sources: botocore 1.44.8, data/partitions.json for regions and suffixes, data/endpoints.json and
//! the endpoint rules of STS for its FIPS names; AWS, "AWS Security Token Service endpoints and
//! quotas", <https://docs.aws.amazon.com/general/latest/gr/sts.html>.

use std::fmt;

/// The global STS host of the partition `aws`. Other partitions have none that drivers can use.
pub const GLOBAL_HOST: &str = "sts.amazonaws.com";

/// The region that drivers sign for when they use the global host.
pub const GLOBAL_REGION: &str = "us-east-1";

/// A partition of AWS. Partitions share no accounts and no keys.
#[derive(Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its id, which is the second field of its ARNs.
    pub id: &'static str,
    /// The prefix of its regions; empty for `aws`, which has all regions without another prefix.
    pub region_prefix: &'static str,
    /// One of its regions, for examples in messages.
    pub example_region: &'static str,
    /// The suffix of its host names.
    pub suffix: &'static str,
    /// The suffix of its dual-stack host names (IPv4 and IPv6).
    pub dual_stack_suffix: &'static str,
    /// The first label of its FIPS hosts.
    pub fips_label: &'static str,
    /// The regions that AWS documents to have a FIPS host.
    pub fips_regions: &'static [&'static str],
}

/// Every partition.
pub static PARTITIONS: [Partition; 8] = [
    Partition {
        id: "aws",
        region_prefix: "",
        example_region: "eu-west-1",
        suffix: "amazonaws.com",
        dual_stack_suffix: "api.aws",
        fips_label: "sts-fips",
        fips_regions: &["us-east-1", "us-east-2", "us-west-1", "us-west-2"],
    },
    Partition {
        id: "aws-cn",
        region_prefix: "cn-",
        example_region: "cn-north-1",
        suffix: "amazonaws.com.cn",
        dual_stack_suffix: "api.amazonwebservices.com.cn",
        fips_label: "sts-fips",
        fips_regions: &[],
    },
    Partition {
        id: "aws-us-gov",
        region_prefix: "us-gov-",
        example_region: "us-gov-west-1",
        suffix: "amazonaws.com",
        dual_stack_suffix: "api.aws",
        fips_label: "sts",
        fips_regions: &["us-gov-east-1", "us-gov-west-1"],
    },
    Partition {
        id: "aws-iso",
        region_prefix: "us-iso-",
        example_region: "us-iso-east-1",
        suffix: "c2s.ic.gov",
        dual_stack_suffix: "api.aws.ic.gov",
        fips_label: "sts-fips",
        fips_regions: &[],
    },
    Partition {
        id: "aws-iso-b",
        region_prefix: "us-isob-",
        example_region: "us-isob-east-1",
        suffix: "sc2s.sgov.gov",
        dual_stack_suffix: "api.aws.scloud",
        fips_label: "sts-fips",
        fips_regions: &[],
    },
    Partition {
        id: "aws-iso-e",
        region_prefix: "eu-isoe-",
        example_region: "eu-isoe-west-1",
        suffix: "cloud.adc-e.uk",
        dual_stack_suffix: "api.cloud-aws.adc-e.uk",
        fips_label: "sts-fips",
        fips_regions: &[],
    },
    Partition {
        id: "aws-iso-f",
        region_prefix: "us-isof-",
        example_region: "us-isof-south-1",
        suffix: "csp.hci.ic.gov",
        dual_stack_suffix: "api.aws.hci.ic.gov",
        fips_label: "sts-fips",
        fips_regions: &[],
    },
    Partition {
        id: "aws-eusc",
        region_prefix: "eusc-",
        example_region: "eusc-de-east-1",
        suffix: "amazonaws.eu",
        dual_stack_suffix: "api.amazonwebservices.eu",
        fips_label: "sts-fips",
        fips_regions: &[],
    },
];

impl Partition {
    /// The partition of a region; `None` for a text that cannot be a region.
    ///
    /// ```text
    /// region = 2*4lower 1*2("-" word) "-" 1*2DIGIT    ; eu-west-1, us-gov-west-1, eusc-de-east-1
    /// word   = 1*lower
    /// lower  = %x61-7A
    /// ```
    ///
    /// There is no list of regions, since it would be outdated in a running server. A region whose
    /// prefix is not in [`PARTITIONS`] belongs to `aws`, where AWS adds regions with new prefixes.
    pub fn of_region(region: &str) -> Option<&'static Self> {
        let (words, number) = region.rsplit_once('-')?;
        let words: Vec<_> = words.split('-').collect();
        let plain = |word: &&str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase());
        let is_region = (2..=3).contains(&words.len())
            && (2..=4).contains(&words[0].len())
            && words.iter().all(plain)
            && (1..=2).contains(&number.len())
            && number.bytes().all(|b| b.is_ascii_digit());
        let with_prefix =
            PARTITIONS.iter().find(|it| !it.region_prefix.is_empty() && region.starts_with(it.region_prefix));
        is_region.then(|| with_prefix.unwrap_or(&PARTITIONS[0]))
    }

    /// The STS host of one of its regions.
    pub fn sts_host(&self, region: &str) -> String {
        format!("sts.{region}.{}", self.suffix)
    }
}

/// Why a host name that is accepted may still be a mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// It is not in a domain of AWS.
    NotAws,
    /// AWS documents no such FIPS host.
    UnknownFips,
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAws => {
                "is not an AWS host name: whoever controls that host decides who can log in. Unless this is intended, \
                 use a host such as sts.eu-west-1.amazonaws.com"
            }
            Self::UnknownFips => {
                "is not a FIPS host that AWS documents for STS. If the name does not exist, every login fails"
            }
        })
    }
}

/// Checks whether a host name, in lower case and with valid labels, can be an STS host. Returns
/// the reason if the name is accepted but may be a mistake.
///
/// ```text
/// host  = GLOBAL_HOST
///       / (%s"sts" / %s"sts-fips") "." region "." suffix  ; region and suffix of one partition
///       / other           ; two labels or more, without the suffix of any partition,
///                         ; and its second label is neither sts nor amazonaws
/// ```
///
/// Drivers sign for the second label as region (`us-east-1` for [`GLOBAL_HOST`]), so no login can
/// succeed with any other name that has a suffix of AWS.
///
/// # Errors
/// What the value must be, to stand after the parameter's name.
pub fn check_sts_host(host: &str) -> Result<Option<Doubt>, String> {
    if host == GLOBAL_HOST {
        return Ok(None);
    }
    let labels: Vec<_> = host.split('.').collect();
    if labels.len() == 1 {
        return Err(match Partition::of_region(host) {
            Some(partition) => format!("must be a host name such as {}; {host} is a region", partition.sts_host(host)),
            None => {
                "must be a host name such as sts.eu-west-1.amazonaws.com; a name without dots has no region".to_owned()
            }
        });
    }
    let below = |suffix: &str| host.strip_suffix(suffix).filter(|rest| rest.is_empty() || rest.ends_with('.'));
    let found = PARTITIONS.iter().find_map(|partition| {
        [partition.suffix, partition.dual_stack_suffix]
            .into_iter()
            .find_map(|suffix| Some((partition, suffix, below(suffix)?.trim_end_matches('.'))))
    });
    let Some((of_suffix, suffix, name)) = found else {
        if matches!(labels[1], "sts" | "amazonaws") {
            return Err(format!(
                "must have a region as its second label, such as sts.eu-west-1.amazonaws.com; clients would sign for \
                 region {}, which does not exist",
                labels[1]
            ));
        }
        return Ok(Some(Doubt::NotAws));
    };
    let of_name = name.split_once('.').and_then(|(label, region)| Some((label, region, Partition::of_region(region)?)));
    if let Some((label @ ("sts" | "sts-fips"), region, partition)) = of_name {
        if suffix == partition.suffix || suffix == partition.dual_stack_suffix {
            // In GovCloud the regional hosts are FIPS hosts, except for dual stack.
            let is_fips = partition.fips_regions.contains(&region)
                && (label == partition.fips_label || suffix == partition.dual_stack_suffix);
            return Ok((label == "sts-fips" && !is_fips).then_some(Doubt::UnknownFips));
        }
        let is_dual_stack = PARTITIONS.iter().any(|partition| partition.dual_stack_suffix == suffix);
        let right = if is_dual_stack { partition.dual_stack_suffix } else { partition.suffix };
        return Err(format!("must be {label}.{region}.{right}; {region} is a region of partition {}", partition.id));
    }
    // The right host for the region in the name, if it has one.
    let meant = labels.iter().find_map(|label| Some(Partition::of_region(label)?.sts_host(label)));
    if labels[0].starts_with("vpce-")
        && let Some(meant) = meant
    {
        return Err(format!(
            "must be {meant}; for a VPC endpoint without private DNS, set awsStsEndpoint to https://{host}"
        ));
    }
    let such_as = meant.unwrap_or_else(|| of_suffix.sts_host(of_suffix.example_region));
    Err(format!("must be an STS host name with a region, such as {such_as}; {host} is not one"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn miri_a_region_belongs_to_the_partition_of_its_prefix() {
        for (region, partition) in [
            ("eu-west-1", "aws"),
            ("ap-southeast-12", "aws"),
            ("mx-central-1", "aws"),
            ("nz-north-1", "aws"),
            ("cn-north-1", "aws-cn"),
            ("cn-northwest-1", "aws-cn"),
            ("us-gov-east-1", "aws-us-gov"),
            ("us-iso-west-1", "aws-iso"),
            ("us-isob-east-1", "aws-iso-b"),
            ("eu-isoe-west-1", "aws-iso-e"),
            ("us-isof-east-1", "aws-iso-f"),
            ("eusc-de-east-1", "aws-eusc"),
            ("eusc-fr-west-1", "aws-eusc"),
        ] {
            assert_eq!(Partition::of_region(region).unwrap().id, partition, "{region}");
        }
        for text in [
            "",
            "-",
            "--1",
            "eu",
            "eu-1",
            "eu-west",
            "euwest1",
            "eu-west-1a",
            "eu-west-",
            "eu-west-100",
            "EU-west-1",
            "eu_west-1",
            "eu-west-1.",
            "us-east-1-bos-1",
            "a-b-1",
            "global",
        ] {
            assert_eq!(Partition::of_region(text), None, "{text:?}");
        }
    }

    #[test]
    fn miri_every_partition_is_consistent() {
        for partition in &PARTITIONS {
            assert_eq!(Partition::of_region(partition.example_region), Some(partition));
            for region in partition.fips_regions {
                assert_eq!(Partition::of_region(region), Some(partition));
                let host = format!("{}.{region}.{}", partition.fips_label, partition.suffix);
                assert_eq!(check_sts_host(&host), Ok(None), "{host}");
            }
            for suffix in [partition.suffix, partition.dual_stack_suffix] {
                let host = format!("sts.{}.{suffix}", partition.example_region);
                assert_eq!(check_sts_host(&host), Ok(None), "{host}");
            }
        }
    }

    #[test]
    fn miri_a_region_below_the_suffix_of_another_partition_is_refused_with_the_right_name() {
        for of_region in &PARTITIONS {
            for of_suffix in PARTITIONS.iter().filter(|it| it.suffix != of_region.suffix) {
                for label in ["sts", "sts-fips"] {
                    let region = of_region.example_region;
                    for (wrong, right) in [
                        (of_suffix.suffix, of_region.suffix),
                        (of_suffix.dual_stack_suffix, of_region.dual_stack_suffix),
                    ] {
                        let host = format!("{label}.{region}.{wrong}");
                        let why = check_sts_host(&host).unwrap_err();
                        assert_eq!(
                            why,
                            format!(
                                "must be {label}.{region}.{right}; {region} is a region of partition {}",
                                of_region.id
                            ),
                            "{host}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn miri_only_names_that_can_never_work_are_refused() {
        const WORKS: &str = "";
        const NOT_AWS: &str = "is not an AWS host name";
        const UNKNOWN_FIPS: &str = "is not a FIPS host";
        for (host, accepted, words) in [
            // A name that AWS documents.
            ("sts.amazonaws.com", true, WORKS),
            ("sts.eu-west-1.amazonaws.com", true, WORKS),
            ("sts.eu-west-1.api.aws", true, WORKS),
            ("sts-fips.us-west-2.amazonaws.com", true, WORKS),
            ("sts-fips.us-west-2.api.aws", true, WORKS),
            ("sts-fips.us-gov-west-1.api.aws", true, WORKS),
            // A region that did not exist when this was written.
            ("sts.xx-north-7.amazonaws.com", true, WORKS),
            ("sts.eusc-fr-west-1.amazonaws.eu", true, WORKS),
            ("sts.us-gov-south-1.amazonaws.com", true, WORKS),
            // FIPS hosts that AWS does not document.
            ("sts-fips.eu-west-1.amazonaws.com", true, UNKNOWN_FIPS),
            ("sts-fips.us-gov-west-1.amazonaws.com", true, UNKNOWN_FIPS),
            ("sts-fips.cn-north-1.amazonaws.com.cn", true, UNKNOWN_FIPS),
            // Hosts outside AWS, and look-alikes.
            ("sts.a.com", true, NOT_AWS),
            ("sts.example.internal", true, NOT_AWS),
            ("sts.eu-west-1.xamazonaws.com", true, NOT_AWS),
            ("sts.eu-west-1.amazonaws.com.example.com", true, NOT_AWS),
            ("sts.eu-west-1.amazonaws.cn", true, NOT_AWS),
            ("sts.eusc-de-east-1.amazonaws.de", true, NOT_AWS),
            ("sts.us-iso-east-1.c2s.ic.gov.uk", true, NOT_AWS),
            ("sts.us-isof-east-1.xcsp.hci.ic.gov", true, NOT_AWS),
            // No region.
            ("eu-west-1", false, "must be a host name such as sts.eu-west-1.amazonaws.com; eu-west-1 is a region"),
            ("cn-north-1", false, "such as sts.cn-north-1.amazonaws.com.cn; cn-north-1 is a region"),
            (
                "sts",
                false,
                "must be a host name such as sts.eu-west-1.amazonaws.com; a name without dots has no region",
            ),
            ("localhost", false, "a name without dots"),
            ("amazonaws.com", false, "such as sts.eu-west-1.amazonaws.com; amazonaws.com is not one"),
            ("eu-west-1.amazonaws.com", false, "such as sts.eu-west-1.amazonaws.com"),
            (
                "sts.euwest1.amazonaws.com",
                false,
                "such as sts.eu-west-1.amazonaws.com; sts.euwest1.amazonaws.com is not one",
            ),
            ("sts.eu-west-1a.amazonaws.com", false, "with a region, such as sts.eu-west-1.amazonaws.com"),
            ("sts.us-east-1-bos-1.amazonaws.com", false, "with a region"),
            ("sts-fips.amazonaws.com", false, "with a region"),
            // Global names that only the partition aws has.
            ("sts.amazonaws.com.cn", false, "such as sts.cn-north-1.amazonaws.com.cn; sts.amazonaws.com.cn is not one"),
            ("sts.amazonaws.eu", false, "such as sts.eusc-de-east-1.amazonaws.eu"),
            ("sts.c2s.ic.gov", false, "such as sts.us-iso-east-1.c2s.ic.gov"),
            ("sts.sc2s.sgov.gov", false, "such as sts.us-isob-east-1.sc2s.sgov.gov"),
            ("sts.cloud.adc-e.uk", false, "such as sts.eu-isoe-west-1.cloud.adc-e.uk"),
            ("sts.csp.hci.ic.gov", false, "such as sts.us-isof-south-1.csp.hci.ic.gov"),
            ("sts.api.aws", false, "such as sts.eu-west-1.amazonaws.com"),
            ("sts.amazonaws.example", false, "clients would sign for region amazonaws"),
            // Another service, or more labels.
            (
                "ec2.eu-west-1.amazonaws.com",
                false,
                "such as sts.eu-west-1.amazonaws.com; ec2.eu-west-1.amazonaws.com is not one",
            ),
            ("iam.us-gov.amazonaws.com", false, "with a region"),
            ("evil-sts.eu-west-1.amazonaws.com", false, "such as sts.eu-west-1.amazonaws.com"),
            ("sts.dualstack.eu-west-1.amazonaws.com", false, "such as sts.eu-west-1.amazonaws.com"),
            ("sts.eu-west-1.example.amazonaws.com", false, "such as sts.eu-west-1.amazonaws.com"),
            ("a.sts.cn-north-1.amazonaws.com.cn", false, "such as sts.cn-north-1.amazonaws.com.cn"),
            ("a.sts.example.com", false, "clients would sign for region sts"),
            // VPC endpoints.
            (
                "vpce-0123-abc.sts.eu-west-1.vpce.amazonaws.com",
                false,
                "must be sts.eu-west-1.amazonaws.com; for a VPC endpoint without private DNS, set awsStsEndpoint to \
                 https://vpce-0123-abc.sts.eu-west-1.vpce.amazonaws.com",
            ),
            (
                "vpce-0123-cn-north-1a.sts.cn-north-1.vpce.amazonaws.com.cn",
                false,
                "must be sts.cn-north-1.amazonaws.com.cn; ",
            ),
            // Dual stack.
            ("sts.cn-north-1.api.aws", false, "must be sts.cn-north-1.api.amazonwebservices.com.cn; "),
            ("sts.eu-west-1.api.amazonwebservices.eu", false, "must be sts.eu-west-1.api.aws; "),
        ] {
            match check_sts_host(host) {
                Ok(doubt) => {
                    let said = doubt.map_or_else(String::new, |doubt| doubt.to_string());
                    assert!(
                        accepted && said.starts_with(words) && said.is_empty() == words.is_empty(),
                        "{host}: {said}"
                    );
                }
                Err(why) => assert!(!accepted && why.starts_with("must ") && why.contains(words), "{host}: {why}"),
            }
        }
    }

    #[test]
    fn miri_the_host_that_an_error_suggests_is_accepted() {
        for wrong in
            ["eu-west-1", "sts.amazonaws.com.cn", "ec2.us-isob-east-1.sc2s.sgov.gov", "sts.cn-north-1.amazonaws.eu"]
        {
            let why = check_sts_host(wrong).unwrap_err();
            let advised = why.split([' ', ';']).find(|word| word.starts_with("sts.") && *word != wrong).unwrap();
            assert_eq!(check_sts_host(advised), Ok(None), "{why}");
        }
    }
}
