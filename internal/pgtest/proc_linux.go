package pgtest

import (
	"os"
	"strconv"
	"strings"
	"syscall"
)

// child is how the programs run: as the servers' user, and no longer than this
// process. SIGQUIT is PostgreSQL's immediate shutdown.
func child(h *home) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Pdeathsig: syscall.SIGQUIT, Setpgid: true}
	if h.root {
		attr.Credential = &syscall.Credential{Uid: h.uid, Gid: h.gid}
	}
	return attr
}

func ownSession() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }

// childrenOf returns the processes that a server has started.
func childrenOf(parent int) []int {
	var pids []int
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue // it has ended
		}
		// After the name, which stands in brackets: state, parent.
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if len(fields) > 1 && fields[1] == strconv.Itoa(parent) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func stop(p *os.Process) error { return p.Signal(syscall.SIGSTOP) }
