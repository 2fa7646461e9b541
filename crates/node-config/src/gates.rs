//! The feature gates of this release. What most of them switch is always as their default says.

use std::collections::BTreeMap;

/// On, and not to be changed.
const LOCKED: &str = "APIServerTracing AggregatedDiscoveryRemoveBetaType AnonymousAuthConfigurableEndpoints \
    AnyVolumeDataSource AuthorizeNodeWithSelectors AuthorizeWithSelectors BtreeWatchCache \
    CPUManagerPolicyOptions CRDValidationRatcheting CSIServiceAccountTokenSecrets \
    ConsistentListFromCache CustomResourceFieldSelectors DRAAdminAccess DeclarativeValidation \
    DisableAllocatorDualWrite DisableNodeKubeProxyVersion DynamicResourceAllocation \
    ExecProbeTimeout ExternalServiceAccountTokenSigner ImageMaximumGCAge ImageVolume \
    InPlacePodVerticalScaling JobBackoffLimitPerIndex JobManagedBy JobPodReplacementPolicy \
    JobSuccessPolicy KubeletCgroupDriverFromCRI KubeletFineGrainedAuthz KubeletPSI \
    KubeletPodResourcesDynamicResources KubeletPodResourcesGet KubeletTracing \
    LogarithmicScaleDown MatchLabelKeysInPodAffinity MultiCIDRServiceAllocator \
    MutableCSINodeAllocatableCount NFTablesProxyMode NodeInclusionPolicyInPodTopologySpread \
    NodeLogQuery NodeSwap OrderedNamespaceDeletion PodLifecycleSleepAction \
    PodLifecycleSleepActionAllowZero PodObservedGenerationTracking PodSchedulingReadiness \
    PreferSameTrafficDistribution ProcMountType RecoverVolumeExpansionFailure \
    RecursiveReadOnlyMounts RelaxedDNSSearchValidation RelaxedEnvironmentVariableValidation \
    ResilientWatchCacheInitialization RetryGenerateName SELinuxChangePolicy \
    SELinuxMountReadWriteOncePod SchedulerQueueingHints SeparateTaintEvictionController \
    ServiceAccountTokenJTI ServiceAccountTokenNodeBinding \
    ServiceAccountTokenNodeBindingValidation ServiceAccountTokenPodNodeInfo SidecarContainers \
    StreamingCollectionEncodingToJSON StreamingCollectionEncodingToProtobuf \
    StructuredAuthenticationConfiguration SupplementalGroupsPolicy SystemdWatchdog \
    TopologyManagerPolicyOptions UserNamespacesSupport VolumeAttributesClass WinDSR WinOverlay";
/// On.
const ON: &str = "APIResponseCompression APIServerIdentity AllowParsingUserUIDFromCertAuth \
    AllowServiceExternalIPs AuthorizePodWebsocketUpgradeCreatePermission \
    CPUManagerPolicyBetaOptions CRDObservedGenerationTracking \
    ClearingNominatedNodeNameAfterBinding ComponentFlagz ComponentStatusz \
    ConstrainedImpersonation ContainerCheckpoint ContainerRestartRules CustomCPUCFSQuotaPeriod \
    DRAConsumableCapacity DRADeviceBindingConditions DRADeviceTaints DRAExtendedResource \
    DRAPartitionableDevices DRAPrioritizedList DRAResourceClaimDeviceStatus \
    DRAResourceClaimGranularStatusAuthorization DRASchedulerFilterTimeout \
    DeclarativeValidationBeta DeploymentReplicaSetTerminatingReplicas DetectCacheInconsistency \
    DisableCPUQuotaWithExclusiveCPUs EnvFiles ExtendWebSocketsToKubelet GracefulNodeShutdown \
    GracefulNodeShutdownBasedOnPodPriority HPAConfigurableTolerance HostnameOverride \
    InPlacePodLevelResourcesVerticalScaling InPlacePodVerticalScalingInitContainers \
    KubeletCrashLoopBackOffMax KubeletEnsureSecretPulledImages \
    KubeletPodResourcesListUseActivePods KubeletSeparateDiskGC \
    KubeletServiceAccountTokenForCredentialProviders ListFromCacheSnapshot \
    MatchLabelKeysInPodTopologySpread MatchLabelKeysInPodTopologySpreadSelectorMerge \
    MutablePodResourcesForSuspendedJobs MutableSchedulingDirectivesForSuspendedJobs \
    MutatingAdmissionPolicy NodeDeclaredFeatures NominatedNodeNameForExpectation OpenAPIEnums \
    OpportunisticBatching PLEGOnDemandRelist PodDeletionCost PodLevelResources \
    PodReadyToStartContainersCondition PodTopologyLabelsAdmission PortForwardWebsockets \
    PreventStaticPodAPIReferences RelaxedServiceNameValidation ReloadKubeletClientCAFile \
    ReloadKubeletServerCertificateFile RemoteRequestHeaderUID ResourceHealthStatus \
    ResourceHealthStatusMessage RestartAllContainersOnContainerExits \
    RotateKubeletServerCertificate SchedulerAsyncPreemption SchedulerPopFromBackoffQ \
    ServiceAccountNodeAudienceRestriction ServiceCIDRStatusFieldWiping SizeBasedListCostEstimate \
    StaleControllerConsistencyDaemonSet StaleControllerConsistencyJob \
    StaleControllerConsistencyReplicaSet StaleControllerConsistencyStatefulSet \
    StatefulSetSemanticRevisionComparison StorageNamespaceIndex StorageVersionHash \
    StrictIPCIDRValidation StructuredAuthenticationConfigurationEgressSelector \
    StructuredAuthenticationConfigurationJWKSMetrics TokenRequestServiceAccountUIDValidation \
    TopologyManagerPolicyBetaOptions TranslateStreamCloseWebsocketRequests \
    UnauthenticatedHTTP2DOSMitigation UnknownVersionInteroperabilityProxy \
    WatchCacheInitializationPostStartHook WatchList WindowsGracefulNodeShutdown";
/// Off.
const OFF: &str = "APIServingWithRoutine AllowDNSOnlyNodeCSR AllowInsecureKubeletCertificateSigningRequests \
    AllowOverwriteTerminationGracePeriodSeconds AllowUnsafeMalformedObjectDeletion \
    CBORServingAndStorage CPUManagerPolicyAlphaOptions CRIListStreaming CSIVolumeHealth \
    ChangeContainerStatusOnKubeletRestart CloudControllerManagerWatchBasedRoutesReconciliation \
    CloudControllerManagerWebhook ClusterTrustBundle ClusterTrustBundleProjection \
    ConcurrentWatchObjectDecode ContainerStopSignals CoordinatedLeaderElection \
    CrossNamespaceVolumeDataSource DRADeviceTaintRules DRAListTypeAttributes \
    DRANodeAllocatableResources DRAResourcePoolStatus DRAWorkloadResourceClaims \
    DeclarativeValidationTakeover EventedPLEG GangScheduling GenericWorkload GitRepoVolumeDriver \
    HPAScaleToZero ImageVolumeWithDigest InPlacePodVerticalScalingExclusiveCPUs \
    InPlacePodVerticalScalingExclusiveMemory KMSv1 KubeletInUserNamespace \
    KubeletRegistrationGetOnExistsOnly LocalStorageCapacityIsolationFSQuotaMonitoring \
    ManifestBasedAdmissionControlConfig MaxUnavailableStatefulSet MemoryQoS \
    MutablePVNodeAffinity PersistentVolumeClaimUnusedSinceTime PodAndContainerStatsFromCRI \
    PodCertificateRequest PodLevelResourceManagers PodLogsQuerySplitStreams PodsAPI QOSReserved \
    ReduceDefaultCrashLoopBackOffDecay RuntimeClassInImageCriApi SELinuxMount \
    SchedulerAsyncAPICalls SeparateCacheWatchRPC ShardedListAndWatch StorageCapacityScoring \
    StorageVersionAPI StorageVersionMigrator TaintTolerationComparisonOperators \
    TopologyAwareWorkloadScheduling TopologyManagerPolicyAlphaOptions \
    UserNamespacesHostNetworkSupport VolumeLimitScaling WindowsCPUAndMemoryAffinity \
    WindowsHostNetwork WorkloadAwarePreemption WorkloadWithJob";

/// Of these, those not to be changed.
const LOCKED_OFF: [&str; 3] = [
    "AllowOverwriteTerminationGracePeriodSeconds",
    "GitRepoVolumeDriver",
    "SeparateCacheWatchRPC",
];

/// Those that switch something here.
const SWITCHES: [&str; 16] = [
    "CPUManagerPolicyAlphaOptions",
    "CPUManagerPolicyBetaOptions",
    "CustomCPUCFSQuotaPeriod",
    "DisableCPUQuotaWithExclusiveCPUs",
    "GracefulNodeShutdown",
    "GracefulNodeShutdownBasedOnPodPriority",
    "KubeletCrashLoopBackOffMax",
    "KubeletEnsureSecretPulledImages",
    "KubeletServiceAccountTokenForCredentialProviders",
    "MemoryQoS",
    "PodReadyToStartContainersCondition",
    "QOSReserved",
    "ReduceDefaultCrashLoopBackOffDecay",
    "ResourceHealthStatus",
    "RotateKubeletServerCertificate",
    "TopologyManagerPolicyBetaOptions",
];

/// Whether a gate is on where these are set.
pub(crate) fn enabled(set: &BTreeMap<String, bool>, name: &str) -> bool {
    let own = || known(name).is_some_and(|(default, _)| default);
    set.get(name).copied().unwrap_or_else(own)
}

/// The default of a gate, and whether it may be changed at all.
fn known(name: &str) -> Option<(bool, bool)> {
    let named = |list: &str| list.split_ascii_whitespace().any(|one| one == name);
    match () {
        () if named(LOCKED) => Some((true, true)),
        () if named(ON) => Some((true, false)),
        () if named(OFF) => Some((false, LOCKED_OFF.contains(&name))),
        () => None,
    }
}

/// What is wrong with setting a gate.
pub(crate) fn fault(name: &str, on: bool) -> Option<String> {
    match known(name) {
        Some((default, true)) if default != on => Some(format!(
            "cannot set feature gate {name} to {on}, feature is locked to {default}"
        )),
        _ => None,
    }
}

/// What is to be said of a gate that changes nothing.
pub(crate) fn warning(name: &str, on: bool) -> Option<String> {
    match known(name) {
        None if matches!(name, "AllAlpha" | "AllBeta") && !on => None,
        None => Some(format!("unrecognized feature gate: {name}")),
        Some(_) if SWITCHES.contains(&name) => None,
        Some((default, _)) if default != on => Some(format!(
            "featureGates.{name} has no effect here: it is {default}"
        )),
        Some(_) => None,
    }
}
