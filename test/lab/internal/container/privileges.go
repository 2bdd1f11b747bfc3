package container

import (
	"fmt"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// capabilityNames are in the order of their numbers.
var capabilityNames = strings.Fields(`CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP
	LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT
	SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE
	AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF
	CHECKPOINT_RESTORE`)

// defaultCapabilities are those that container runtimes give by default.
var defaultCapabilities = strings.Fields(`CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP
	NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE`)

// Capabilities returns the bounding set of a container, from what its security
// context adds and drops.
func Capabilities(privileged bool, add, drop []string) ([]string, error) {
	if privileged {
		return capabilityNames, nil
	}
	add, err := normalize(add)
	if err != nil {
		return nil, err
	}
	if drop, err = normalize(drop); err != nil {
		return nil, err
	}
	set := slices.Clone(defaultCapabilities)
	if slices.Contains(add, "ALL") {
		set = slices.Clone(capabilityNames)
	}
	if slices.Contains(drop, "ALL") {
		set = nil
	}
	set = slices.DeleteFunc(set, func(c string) bool { return slices.Contains(drop, c) })
	for _, c := range add {
		if c != "ALL" && !slices.Contains(set, c) {
			set = append(set, c)
		}
	}
	return set, nil
}

func normalize(names []string) ([]string, error) {
	var out []string
	for _, n := range names {
		n = strings.TrimPrefix(strings.ToUpper(n), "CAP_")
		if n != "ALL" && !slices.Contains(capabilityNames, n) {
			return nil, fmt.Errorf("unknown capability %q", n)
		}
		out = append(out, n)
	}
	return out, nil
}

// dropPrivileges gives the calling thread the user and the capabilities of the
// container. As with real runtimes, a user other than root keeps none of the
// added capabilities, except through file capabilities of its program.
func dropPrivileges(s *Spec) error {
	var mask uint64
	for i, name := range capabilityNames {
		if slices.Contains(s.Capabilities, name) {
			mask |= 1 << i
			continue
		}
		// A kernel may know fewer of them.
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(i), 0, 0, 0); err != nil && err != unix.EINVAL {
			return fmt.Errorf("drop capability %s: %w", name, err)
		}
	}
	if err := setIDs(s); err != nil {
		return err
	}
	if s.UID == 0 {
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		low, high := uint32(mask), uint32(mask>>32)
		data := [2]unix.CapUserData{
			{Effective: low, Permitted: low},
			{Effective: high, Permitted: high},
		}
		if err := unix.Capset(&header, &data[0]); err != nil {
			return fmt.Errorf("set capabilities: %w", err)
		}
	}
	if s.NoNewPrivs {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("set no_new_privs: %w", err)
		}
	}
	return nil
}

// setIDs uses raw system calls because only the calling thread is to change:
// it alone survives the exec.
func setIDs(s *Spec) error {
	groups := make([]uint32, len(s.Groups))
	for i, g := range s.Groups {
		groups[i] = uint32(g)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(unsafe.SliceData(groups))), 0); errno != 0 {
		return fmt.Errorf("set groups: %w", errno)
	}
	gid, uid := uintptr(s.GID), uintptr(s.UID)
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, gid, gid, gid); errno != 0 {
		return fmt.Errorf("set group %d: %w", s.GID, errno)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uid, uid, uid); errno != 0 {
		return fmt.Errorf("set user %d: %w", s.UID, errno)
	}
	return nil
}
