// Package manifests tests what manifests/ installs, without a cluster: that
// references resolve, that rights stay narrow, and that the admission policies
// decide as they say.
package manifests
