// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.37;

/// @title  FederatedRounds
/// @notice What the peers of one federated task agree on: who takes part, the feature map, and for every round the
///         models (by content identifier), the grades that peers gave each other, the reputation that follows, who is
///         warned or excluded, and who earned what.
/// @dev    There is no owner and no aggregator. Rounds count from 1 and open in order; each goes through the phases of
///         `Phase`. In a synchronous task everybody plays every round; in an asynchronous one (`windowSeconds` > 0)
///         rounds are windows, and who submits nothing to one is not judged in it. Every state change emits an event,
///         and nothing that an event carries is stored unless a later call needs it. The settlement's rule stands in
///         contracts/reputation.py too, and the tests play one against the other. Every loop is over at most MAX_NODES
///         nodes, whose number the opener or a deposit bounds.
contract FederatedRounds {
    /*//////////////////////////////////////////////////////////////
                                  TYPES
    //////////////////////////////////////////////////////////////*/

    enum Phase {
        Setup,
        Submit,
        Commit,
        Reveal,
        Settle,
        Ended
    }

    /// @dev Percentages are of the median reputation; `strong*` and `asymmetry` are grades. One slot. The last two are
    ///      of asynchronous tasks: how long a round takes submissions, how many have to reveal for its scores to act.
    struct Rules {
        uint32 submitSeconds;
        uint32 commitSeconds;
        uint32 revealSeconds;
        uint32 setupSeconds;
        uint8 warn;
        uint8 lowEarly;
        uint8 lowLate;
        uint8 early;
        uint8 strongEarly;
        uint8 strongLate;
        uint8 asymmetry;
        uint8 keep;
        uint8 lowInARow;
        uint8 hardInARow;
        uint32 windowSeconds; // 0: the task is synchronous
        uint8 quorum;
    }

    struct Terms {
        bytes32 configDigest; // SHA-256 of the run's configuration
        uint32 maxRounds;
        uint8 minNodes; // the first round opens when so many have registered
        uint96 deposit; // wei that registering takes
        Rules rules;
    }

    /// @dev One slot.
    struct Node {
        address account;
        uint16 reputation; // hundredths of a grade, 0..10000
        uint8 low; // strong settlements in a row in which it was low
        uint8 hard; // scores of 0 in a row
        uint48 credits; // its reputation summed over the rounds that earn a share of the reward
        bool scored; // until then it has no reputation and weighs nothing
    }

    /// @dev One slot.
    struct State {
        uint64 openedAt; // time that the open round was opened, 0 where none is open
        uint32 base; // round whose models the open round starts from, 0: the common start
        uint32 closed; // last round that is settled or void
        uint32 settlements;
        uint8 nodes; // known nodes: of the allow-list, or registered
        uint8 roundNodes; // known when the open round was opened; grades have so many bytes
        uint8 scoredPages; // of the settlement under way, 32 nodes each
        bool ended;
        uint48 credits; // of all nodes
    }

    /// @dev What a settlement works on, in memory.
    struct Sheet {
        uint256 n;
        uint256 active;
        uint256 submitted;
        uint256 revealed;
        uint256 pairs; // who submitted and revealed: only they both give grades and get them
        uint256 known; // who was scored before; while nobody was, everybody
        Node[] nodes;
        uint256[] weights;
        bytes scores;
        bytes asymmetry;
        bool early;
        bool enough; // revealed for scores to act
        bool strong;
        uint256 judged;
        uint256 missed; // who is judged as 0: it was absent (in a synchronous task), or committed and hid its grades
        uint256 low;
        uint256 flagged;
        uint256 out;
    }

    /*//////////////////////////////////////////////////////////////
                                 EVENTS
    //////////////////////////////////////////////////////////////*/

    event TaskOpened(
        bytes32 indexed configDigest, Terms terms, address[] allowed, uint256 pool, string experiment, string source
    );
    event NodeRegistered(uint256 indexed node, address indexed account, bytes32 exchangeKey, bytes32 signingKey);
    event MapProposed(uint256 indexed node, bytes32 digest);
    event MapAgreed(bytes32 digest);
    event RoundOpened(uint32 indexed round, uint32 base, uint256 active);
    event ModelSubmitted(
        uint32 indexed round,
        uint256 indexed node,
        bytes32 digest,
        uint8 codec,
        uint192 metrics,
        uint256 resources,
        bytes32 signature
    );
    event GradesCommitted(uint32 indexed round, uint256 indexed node, bytes32 commitment);
    event GradesRevealed(uint32 indexed round, uint256 indexed node, bytes grades, bytes32 salt);
    event RoundSettled(
        uint32 indexed round,
        bytes scores,
        bytes asymmetry,
        uint16[] reputation,
        uint256 low,
        uint256 flagged,
        uint256 excluded,
        bool strong
    );
    event RollbackVoted(uint32 indexed round, uint256 indexed node, uint32 target);
    event RolledBack(uint32 indexed round, uint32 target, bool spent);
    event Concluded(uint256 indexed node, bytes32 model, bytes32 report);
    event TaskEnded(bool abandoned);
    event Withdrawn(address indexed account, uint256 amount);
    event Announced(uint256 indexed node, bytes32 indexed topic, bytes32 digest, uint8 codec);

    /*//////////////////////////////////////////////////////////////
                                 ERRORS
    //////////////////////////////////////////////////////////////*/

    error BadNodeCount(uint256 given, uint256 most);
    error BadNode(address account);
    error BadRounds(uint32 given, uint32 most);
    error BadRules();
    error BadDeposit(uint256 given, uint256 want);
    error NotAllowed(address account);
    error NotRegistered(uint256 node);
    error NotActive(uint256 node);
    error AlreadyRegistered(uint256 node);
    error EmptyKey();
    error EmptyDigest();
    error AlreadyProposed(uint256 node);
    error WrongPhase(uint32 round, uint32 open, Phase phase);
    error UnknownCodec(uint8 codec);
    error AlreadySubmitted(uint32 round, uint256 node);
    error NotSubmitted(uint32 round, uint256 node);
    error AlreadyCommitted(uint32 round, uint256 node);
    error NotCommitted(uint32 round, uint256 node);
    error AlreadyRevealed(uint32 round, uint256 node);
    error WrongReveal(uint32 round, uint256 node);
    error BadGradesLength(uint256 given, uint256 want);
    error BadGrade(uint256 node, uint8 grade);
    error OnlySynchronous();
    error BadTarget(uint32 target, uint32 base);
    error AlreadyVoted(uint32 target, uint256 node);
    error AlreadyConcluded(uint256 node);
    error TooEarly(uint256 until);
    error NothingOwed(address account);
    error TransferFailed(address account);

    /*//////////////////////////////////////////////////////////////
                           CONSTANTS AND TASK
    //////////////////////////////////////////////////////////////*/

    uint256 public constant MAX_NODES = 255;
    uint32 public constant MAX_ROUNDS = 65_535;

    /// @notice Stands in a list of grades or scores where there is none.
    uint8 public constant NONE = 255;

    uint8 public constant CODEC_RAW = 0x55;
    uint8 public constant CODEC_DAG_PB = 0x70;

    /// @dev Kept set in the sets of a round, so that emptying them leaves their slots dear to nobody: the first write
    ///      of a round then costs what any other does. There is no node 255.
    uint256 internal constant EMPTY = 1 << 255;

    bytes32 public immutable configDigest;
    uint32 public immutable maxRounds;
    uint256 public immutable minNodes;
    uint256 public immutable deposit;
    uint256 public immutable pool;
    address public immutable opener;

    /// @notice Whether any account may register (with the deposit), or those of the allow-list only.
    bool public immutable open;

    /// @dev `windowSeconds` of the rules, which a synchronous task then pays nothing for.
    uint256 internal immutable _window;

    /// @notice Block and time that the task was opened at: the log begins here.
    uint256 public immutable openedBlock;
    uint256 public immutable openedTime;

    /*//////////////////////////////////////////////////////////////
                                STORAGE
    //////////////////////////////////////////////////////////////*/

    Rules internal _rules;
    State internal _state;
    bytes32 public mapDigest;

    // Sets of nodes: bit i stands for node i.
    uint256 internal _registered;
    uint256 internal _excluded;
    uint256 internal _proposed;
    uint256 internal _concluded;
    uint256 internal _paid; // bit 255: the opener
    uint256 internal _active; // who may take part in the open round
    uint256 internal _submitted;
    uint256 internal _committed;
    uint256 internal _revealed;

    /// @dev Of an asynchronous task: the last round whose phase of submissions was ended by one of them, and when. The
    ///      round stands with it so that nothing has to be emptied for the next one.
    uint32 internal _endedRound;
    uint64 internal _endedAt;

    Node[MAX_NODES] internal _nodes;

    /// @dev A node's commitment, and once revealed its grades, 32 a word.
    bytes32[8][MAX_NODES] internal _slips;

    /// @dev Of a settlement in several pages, what the earlier pages found.
    bytes32[8] internal _scores;
    bytes32[8] internal _asymmetry;

    mapping(address account => uint256 nodePlusOne) internal _indexOf;
    mapping(bytes32 digest => uint256 count) internal _proposals;

    /// @dev Bit r % 256 of word r / 256: round r is settled and counts.
    mapping(uint256 word => uint256 rounds) internal _counts;
    mapping(bytes32 question => uint256 nodes) internal _votes;

    /*//////////////////////////////////////////////////////////////
                                 SET-UP
    //////////////////////////////////////////////////////////////*/

    /// @notice Open the task; what is paid in is the pool of rewards.
    /// @param allowed    Who may register, at most MAX_NODES, numbered in this order; empty: anybody, numbered as they
    ///                   come.
    /// @param experiment Name of the experiment, for the log.
    /// @param source     Where the data is from ("official", "stand-in"), for the log.
    constructor(Terms memory terms, address[] memory allowed, string memory experiment, string memory source) payable {
        uint256 n = allowed.length;
        if (n > MAX_NODES || terms.minNodes == 0 || (n != 0 && terms.minNodes > n)) revert BadNodeCount(n, MAX_NODES);
        if (n == 0 && terms.deposit == 0) revert BadDeposit(0, 1); // names cost nothing: places have to
        if (terms.maxRounds == 0 || terms.maxRounds > MAX_ROUNDS) revert BadRounds(terms.maxRounds, MAX_ROUNDS);
        if (terms.configDigest == 0) revert EmptyDigest();
        Rules memory r = terms.rules;
        if (
            r.submitSeconds == 0 || r.commitSeconds == 0 || r.revealSeconds == 0 || r.setupSeconds == 0
                || r.lowInARow == 0 || r.hardInARow == 0 || r.keep > 100 || r.warn > 100 || r.lowEarly > 100
                || r.lowLate > 100 || r.windowSeconds > r.submitSeconds || (r.windowSeconds != 0 && r.quorum == 0)
        ) revert BadRules();
        configDigest = terms.configDigest;
        maxRounds = terms.maxRounds;
        minNodes = terms.minNodes;
        deposit = terms.deposit;
        pool = msg.value;
        opener = msg.sender;
        open = n == 0;
        _window = r.windowSeconds;
        openedBlock = block.number;
        openedTime = block.timestamp;
        _rules = r;
        _state.nodes = uint8(n);
        _submitted = _committed = _revealed = EMPTY;
        if (_window != 0) _endedAt = 1; // of no round: a slot in use is cheaper to write
        for (uint256 i; i < n; ++i) {
            address account = allowed[i];
            if (account == address(0) || _indexOf[account] != 0) revert BadNode(account);
            _indexOf[account] = i + 1;
            _nodes[i].account = account;
        }
        emit TaskOpened(terms.configDigest, terms, allowed, msg.value, experiment, source);
    }

    /// @notice Take part, with the X25519 public key that this node's pairwise masks are made from, and the SHA-256 of
    ///         the ML-DSA-65 public key that it signs its models with (0: it signs with its account). Who comes after
    ///         the first round was opened takes part from the next one on, and weighs nothing before it was scored.
    function register(bytes32 exchangeKey, bytes32 signingKey) external payable {
        State memory s = _state;
        if (s.ended) revert WrongPhase(0, 0, Phase.Ended);
        if (msg.value != deposit) revert BadDeposit(msg.value, deposit);
        if (exchangeKey == 0) revert EmptyKey();
        uint256 node = _indexOf[msg.sender];
        if (node == 0) {
            if (!open) revert NotAllowed(msg.sender);
            node = s.nodes;
            if (node == MAX_NODES) revert BadNodeCount(node + 1, MAX_NODES);
            _indexOf[msg.sender] = node + 1;
            _nodes[node].account = msg.sender;
            _state.nodes = s.nodes = uint8(node + 1);
        } else {
            --node;
        }
        uint256 all = _registered;
        if (_has(all, node)) revert AlreadyRegistered(node);
        _registered = all | (1 << node);
        _slips[node][0] = bytes32(uint256(1)); // a slot in use is cheaper to write, round after round
        emit NodeRegistered(node, msg.sender, exchangeKey, signingKey);
        _openFirst(s);
    }

    /// @notice State the digest of the feature map that this node computed. It is agreed once more than two thirds of
    ///         the registered nodes (of `minNodes`, where those are more) stated the same.
    function agreeMap(bytes32 digest) external {
        uint256 node = _registeredNode();
        if (digest == 0) revert EmptyDigest();
        uint256 proposed = _proposed;
        if (_has(proposed, node)) revert AlreadyProposed(node);
        _proposed = proposed | (1 << node);
        uint256 count = ++_proposals[digest];
        emit MapProposed(node, digest);
        if (mapDigest != 0) return;
        uint256 voters = _count(_registered);
        if (voters < minNodes) voters = minNodes;
        if (3 * count > 2 * voters) {
            mapDigest = digest;
            emit MapAgreed(digest);
            _openFirst(_state);
        }
    }

    /// @notice Say where content is that others wait for, at any time. Nothing is stored: who needs it reads the log.
    /// @param topic  What it is of; a node's first announcement of a topic is the one that counts.
    /// @param digest SHA-256 of the content's root block.
    /// @param codec  Codec of its CIDv1.
    function announce(bytes32 topic, bytes32 digest, uint8 codec) external {
        uint256 node = _registeredNode();
        if (topic == 0 || digest == 0) revert EmptyDigest();
        if (codec != CODEC_RAW && codec != CODEC_DAG_PB) revert UnknownCodec(codec);
        emit Announced(node, topic, digest, codec);
    }

    /*//////////////////////////////////////////////////////////////
                                 ROUNDS
    //////////////////////////////////////////////////////////////*/

    /// @notice Publish this node's model of the open round.
    /// @param digest    SHA-256 of the model file's root block.
    /// @param codec     Codec of its CIDv1: CODEC_RAW (one block) or CODEC_DAG_PB (larger).
    /// @param metrics   The node's own metrics, six fixed-point values of 32 bits.
    /// @param resources What the model took, four values of 64 bits: the node's own statement, which pays nothing.
    /// @param signature SHA-256 of the file that holds its signature.
    function submit(
        uint32 round,
        bytes32 digest,
        uint8 codec,
        uint192 metrics,
        uint256 resources,
        bytes32 signature
    ) external {
        uint256 node = _activeNode();
        uint256 submitted = _submitted;
        if (_has(submitted, node) && round == _openRound(_state)) revert AlreadySubmitted(round, node);
        _require(round, Phase.Submit);
        if (digest == 0 || signature == 0) revert EmptyDigest();
        if (codec != CODEC_RAW && codec != CODEC_DAG_PB) revert UnknownCodec(codec);
        submitted |= 1 << node;
        _submitted = submitted;
        if (_window != 0 && (submitted == _active | EMPTY || block.timestamp >= _state.openedAt + _window)) {
            _endedRound = round;
            _endedAt = uint64(block.timestamp);
        }
        emit ModelSubmitted(round, node, digest, codec, metrics, resources, signature);
    }

    /// @notice Bind this node to its grades of the open round without showing them, so that nobody can copy them. In a
    ///         synchronous task only who submitted may grade; in an asynchronous one every active node.
    /// @param commitment keccak256 of contract address, round (4 bytes), node (1), salt (32) and grades, concatenated.
    function commit(uint32 round, bytes32 commitment) external {
        uint256 node = _activeNode();
        uint256 committed = _committed;
        if (_has(committed, node) && round == _openRound(_state)) revert AlreadyCommitted(round, node);
        _require(round, Phase.Commit);
        if (!_has(_submitted, node) && _window == 0) revert NotSubmitted(round, node);
        if (commitment == 0) revert EmptyDigest();
        _committed = committed | (1 << node);
        _slips[node][0] = commitment;
        emit GradesCommitted(round, node, commitment);
    }

    /// @notice Show the grades that this node committed to.
    /// @param grades One byte a node: 0..100 for every peer that submitted, NONE for all others and oneself.
    function reveal(uint32 round, bytes calldata grades, bytes32 salt) external {
        uint256 node = _activeNode();
        uint256 revealed = _revealed;
        if (_has(revealed, node) && round == _openRound(_state)) revert AlreadyRevealed(round, node);
        _require(round, Phase.Reveal);
        if (!_has(_committed, node)) revert NotCommitted(round, node);
        uint256 n = _state.roundNodes;
        if (grades.length != n) revert BadGradesLength(grades.length, n);
        bytes32[8] storage slip = _slips[node];
        if (slip[0] != keccak256(abi.encodePacked(address(this), round, uint8(node), salt, grades))) {
            revert WrongReveal(round, node);
        }
        uint256 submitted = _submitted;
        for (uint256 j; j < n; ++j) {
            uint8 g = uint8(grades[j]);
            if (j != node && _has(submitted, j) ? g > 100 : g != NONE) revert BadGrade(j, g);
        }
        for (uint256 w; 32 * w < n; ++w) {
            bytes32 word;
            // Behind the last grade stands whatever the calldata has there: nobody reads it.
            assembly {
                word := calldataload(add(grades.offset, mul(w, 32)))
            }
            slip[w] = word;
        }
        _revealed = revealed | (1 << node);
        emit GradesRevealed(round, node, grades, salt);
    }

    /// @notice Close the open round, once all have revealed or the time for it is over. Any node may, and whoever does,
    ///         the outcome is the same.
    /// @param most Score at most so many nodes now (at least 32): a large task is settled in several calls, of which
    ///             the last one acts.
    function settle(uint32 round, uint256 most) external {
        _registeredNode();
        _require(round, Phase.Settle);
        State memory s = _state;
        Sheet memory sheet = _sheet(s);
        uint256 pages = (sheet.n + 31) / 32;
        uint256 page = s.scoredPages;
        uint256 last = page + (most < 32 ? 1 : most / 32);
        if (last > pages) last = pages;
        for (uint256 w; w < page; ++w) {
            _write(sheet.scores, w, _scores[w]);
            _write(sheet.asymmetry, w, _asymmetry[w]);
        }
        for (uint256 w = page; w < last; ++w) {
            _scorePage(sheet, w);
            if (last < pages) {
                _scores[w] = _read(sheet.scores, w);
                _asymmetry[w] = _read(sheet.asymmetry, w);
            }
        }
        if (last < pages) {
            _state.scoredPages = uint8(last);
            return;
        }
        _finish(round, s, sheet);
    }

    /*//////////////////////////////////////////////////////////////
                           ROLLBACK AND THE END
    //////////////////////////////////////////////////////////////*/

    /// @notice Vote to go on from the models of an earlier round `target` (0: the common start). With two thirds of the
    ///         reputation of the active nodes the rounds after it count no more. The open round is void, and its number
    ///         spent, if anybody has submitted to it; else it opens again. A vote holds until the next round closes.
    ///         What was earned in those rounds stays earned: the grades were given for work that was done. In an
    ///         asynchronous task models name the state that they started from, and there is nothing to go back to.
    function rollback(uint32 target) external {
        if (_window != 0) revert OnlySynchronous();
        uint256 node = _registeredNode();
        if (_has(_excluded, node)) revert NotActive(node);
        State memory s = _state;
        uint32 round = _openRound(s);
        bool spent = round != 0 && _submitted != EMPTY;
        if (s.settlements == 0 || target > s.base || (target == s.base && !spent) || !_isCounted(target)) {
            revert BadTarget(target, s.base);
        }
        bytes32 question = keccak256(abi.encode(s.closed, s.base, target));
        uint256 votes = _votes[question];
        if (_has(votes, node)) revert AlreadyVoted(target, node);
        votes |= 1 << node;
        _votes[question] = votes;
        emit RollbackVoted(round, node, target);

        uint256 total;
        uint256 yes;
        uint256 n = s.nodes;
        uint256 voters = _registered & ~_excluded;
        for (uint256 i; i < n; ++i) {
            if (!_has(voters, i)) continue;
            uint256 weight = _nodes[i].reputation;
            total += weight;
            if (_has(votes, i)) yes += weight;
        }
        if (total == 0 || 3 * yes < 2 * total) return;

        for (uint256 w = target / 256; w <= s.base / 256; ++w) {
            _counts[w] &= w == target / 256 ? type(uint256).max >> (255 - (target % 256)) : 0;
        }
        s.base = target;
        if (spent) s.closed = round;
        _concluded = 0; // what was concluded is of other models: it has to be said again
        emit RolledBack(round, target, spent);
        if (round == 0) _state = s;
        else _openNext(s);
    }

    /// @notice After the last round: the digests of the final model and of the report as this node has them.
    function conclude(bytes32 model, bytes32 report) external {
        uint256 node = _registeredNode();
        if (!_state.ended) revert WrongPhase(0, _openRound(_state), phase());
        if (model == 0 || report == 0) revert EmptyDigest();
        uint256 concluded = _concluded;
        if (_has(concluded, node)) revert AlreadyConcluded(node);
        _concluded = concluded | (1 << node);
        emit Concluded(node, model, report);
    }

    /// @notice End a task that nobody carries on: no first round, or no settlement, within `setupSeconds` of when it
    ///         was due. What was earned until then is paid.
    function abandon() external {
        if (msg.sender != opener) _registeredNode();
        State memory s = _state;
        if (s.ended) revert WrongPhase(0, 0, Phase.Ended);
        Rules memory r = _rules;
        uint256 due = openedTime;
        if (s.openedAt != 0) due = uint256(s.openedAt) + r.submitSeconds + r.commitSeconds + r.revealSeconds;
        due += r.setupSeconds;
        if (block.timestamp < due) revert TooEarly(due);
        s.openedAt = 0;
        s.ended = true;
        _state = s;
        emit TaskEnded(true);
    }

    /// @notice Fetch what the caller is owed once the task has ended: see `owed`.
    function withdraw() external {
        uint256 amount = owed(msg.sender);
        if (amount == 0) revert NothingOwed(msg.sender);
        uint256 index = _indexOf[msg.sender];
        uint256 paid = _paid;
        if (index != 0) paid |= 1 << (index - 1);
        if (msg.sender == opener) paid |= 1 << 255;
        _paid = paid;
        emit Withdrawn(msg.sender, amount);
        (bool done,) = msg.sender.call{value: amount}("");
        if (!done) revert TransferFailed(msg.sender);
    }

    /// @notice What an account may withdraw. A node: its share of the pool by credits (to which the deposits of
    ///         excluded nodes are added), and its deposit unless it was excluded. The opener: the pool, where nobody
    ///         has credits (never a deposit: nobody may gain by others' exclusion but the nodes that earned). What is
    ///         left of rounding down stays here.
    function owed(address account) public view returns (uint256 amount) {
        State memory s = _state;
        if (!s.ended) return 0;
        uint256 paid = _paid;
        uint256 index = _indexOf[account];
        uint256 prize = pool + deposit * _count(_excluded);
        if (index != 0 && !_has(paid, index - 1) && _has(_registered, index - 1)) {
            if (!_has(_excluded, index - 1)) amount = deposit;
            if (s.credits != 0) amount += (prize * _nodes[index - 1].credits) / s.credits;
        }
        if (account == opener && s.credits == 0 && !_has(paid, 255)) amount += pool;
    }

    /*//////////////////////////////////////////////////////////////
                                 VIEWS
    //////////////////////////////////////////////////////////////*/

    /// @notice What the open round takes now.
    function phase() public view returns (Phase) {
        return _phase(_state, block.timestamp);
    }

    /// @notice What the open round will take at a time, if nobody does anything until then.
    function phaseAt(uint256 time) external view returns (Phase) {
        return _phase(_state, time);
    }

    /// @notice The open round, 0 where there is none.
    function openRound() external view returns (uint32) {
        return _openRound(_state);
    }

    /// @notice Where the task is: opening time of the open round, the round that it starts from, the last round that
    ///         is closed, how many settlements there were, how many nodes are known (and were when the round opened).
    function state() external view returns (State memory) {
        return _state;
    }

    function rules() external view returns (Rules memory) {
        return _rules;
    }

    /// @notice Sets of nodes, bit i for node i; the last three of the open round.
    function sets()
        external
        view
        returns (
            uint256 registered,
            uint256 excluded,
            uint256 active,
            uint256 submitted,
            uint256 committed,
            uint256 revealed
        )
    {
        return (_registered, _excluded, _active, _submitted & ~EMPTY, _committed & ~EMPTY, _revealed & ~EMPTY);
    }

    /// @notice All known nodes in order.
    function nodes() external view returns (Node[] memory all) {
        all = new Node[](_state.nodes);
        for (uint256 i; i < all.length; ++i) all[i] = _nodes[i];
    }

    /// @notice Number of the node with this account. Reverts where there is none.
    function indexOf(address account) public view returns (uint256) {
        uint256 index = _indexOf[account];
        if (index == 0) revert NotAllowed(account);
        return index - 1;
    }

    /// @notice Whether a round is settled and counts; round 0, the common start, always does.
    function counts(uint32 round) external view returns (bool) {
        return _isCounted(round);
    }

    /*//////////////////////////////////////////////////////////////
                            INTERNAL: ACCESS
    //////////////////////////////////////////////////////////////*/

    function _registeredNode() internal view returns (uint256 node) {
        node = indexOf(msg.sender);
        if (!_has(_registered, node)) revert NotRegistered(node);
    }

    function _activeNode() internal view returns (uint256 node) {
        node = indexOf(msg.sender);
        if (!_has(_active, node)) revert NotActive(node);
    }

    function _require(uint32 round, Phase wanted) internal view {
        State memory s = _state;
        Phase now_ = _phase(s, block.timestamp);
        if (round != _openRound(s) || now_ != wanted) revert WrongPhase(round, _openRound(s), now_);
    }

    function _openRound(State memory s) internal pure returns (uint32) {
        return s.openedAt == 0 ? 0 : s.closed + 1;
    }

    /// @dev A phase ends when everybody is done, or when its time is over. In an asynchronous task submissions end with
    ///      the window where one was there by then, else with the first one, and the time for grades counts from that.
    function _phase(State memory s, uint256 time) internal view returns (Phase) {
        if (s.ended) return Phase.Ended;
        if (s.openedAt == 0) return Phase.Setup;
        Rules storage r = _rules;
        uint256 until = uint256(s.openedAt) + r.submitSeconds;
        uint256 submitted = _submitted;
        if (_window == 0 || submitted == EMPTY) {
            if (submitted != _active | EMPTY && time < until) return Phase.Submit;
        } else {
            until = _endedRound == s.closed + 1 ? _endedAt : s.openedAt + _window;
            if (time < until) return Phase.Submit;
        }
        until += r.commitSeconds;
        uint256 committed = _committed;
        if (committed & submitted != submitted && time < until) return Phase.Commit;
        until += r.revealSeconds;
        if (_revealed != committed && time < until) return Phase.Reveal;
        return Phase.Settle;
    }

    function _isCounted(uint32 round) internal view returns (bool) {
        return round == 0 || _has(_counts[round / 256], round % 256);
    }

    function _has(uint256 set, uint256 node) internal pure returns (bool) {
        return (set >> node) & 1 != 0;
    }

    function _count(uint256 set) internal pure returns (uint256 count) {
        for (; set != 0; ++count) set &= set - 1;
    }

    /*//////////////////////////////////////////////////////////////
                            INTERNAL: ROUNDS
    //////////////////////////////////////////////////////////////*/

    function _openFirst(State memory s) internal {
        if (s.openedAt != 0 || s.closed != 0 || s.ended) return;
        if (mapDigest == 0 || _count(_registered) < minNodes) return;
        _openNext(s);
    }

    /// @dev Open round closed + 1, or end the task where none is left, or nobody to play it.
    function _openNext(State memory s) internal {
        uint256 active = _registered & ~_excluded;
        s.scoredPages = 0;
        if (s.closed == maxRounds || active == 0) {
            s.openedAt = 0;
            s.ended = true;
            _state = s;
            emit TaskEnded(false);
            return;
        }
        s.openedAt = uint64(block.timestamp);
        s.roundNodes = s.nodes;
        _state = s;
        _active = active;
        _submitted = _committed = _revealed = EMPTY;
        emit RoundOpened(s.closed + 1, s.base, active);
    }

    /*//////////////////////////////////////////////////////////////
                          INTERNAL: SETTLEMENT
    //////////////////////////////////////////////////////////////*/

    function _sheet(State memory s) internal view returns (Sheet memory sheet) {
        uint256 n = s.roundNodes;
        sheet.n = n;
        sheet.active = _active;
        sheet.submitted = _submitted & ~EMPTY;
        sheet.revealed = _revealed & ~EMPTY;
        sheet.pairs = sheet.submitted & sheet.revealed;
        sheet.early = s.settlements < _rules.early;
        sheet.nodes = new Node[](n);
        sheet.weights = new uint256[](n);
        for (uint256 i; i < n; ++i) {
            sheet.nodes[i] = _nodes[i];
            // Newcomers have no say yet: neither a weight nor a part in what is usual.
            if (sheet.nodes[i].scored) sheet.known |= 1 << i;
            sheet.weights[i] = sheet.nodes[i].reputation;
        }
        // While all are newcomers they have the same say. Where nobody waits, some are scored before others: who is
        // fast would then decide alone about the rest, so that a quorum of them has to be there first.
        if (_count(sheet.known) < (_window == 0 ? 1 : _quorum(sheet.active))) {
            sheet.known = (1 << n) - 1;
            uint256[] memory weights = sheet.weights;
            for (uint256 i; i < n; ++i) weights[i] = 1;
        }
        // Rounded up to whole words, so that pages can be copied; the events cut them to n.
        sheet.scores = new bytes(32 * ((n + 31) / 32));
        sheet.asymmetry = new bytes(sheet.scores.length);
    }

    /// @dev Score and asymmetry of nodes 32 w ..; NONE where there is none.
    function _scorePage(Sheet memory sheet, uint256 w) internal view {
        uint256 n = sheet.n;
        bytes32[] memory column = new bytes32[](n); // what each revealed grader gave to the page's nodes
        for (uint256 i; i < n; ++i) {
            if (_has(sheet.revealed, i)) column[i] = _slips[i][w];
        }
        uint256 end = 32 * (w + 1) < n ? 32 * (w + 1) : n;
        for (uint256 j = 32 * w; j < end; ++j) {
            uint256 free;
            assembly {
                free := mload(0x40)
            }
            sheet.scores[j] = bytes1(_score(sheet, column, j));
            sheet.asymmetry[j] = bytes1(_skew(sheet, column, j));
            // The bins of a node are not needed for the next: memory is used again.
            assembly {
                mstore(0x40, free)
            }
        }
    }

    function _score(Sheet memory sheet, bytes32[] memory column, uint256 j) internal pure returns (uint8) {
        if (!_has(sheet.submitted, j)) return NONE;
        if (sheet.active & (sheet.active - 1) == 0) return 100; // a lone node has nobody to grade it
        uint256 shift = 8 * (31 - (j % 32));
        uint256 graders = sheet.revealed & ~(1 << j);
        uint256[] memory grades = new uint256[](column.length);
        unchecked {
            for (uint256 i; i < column.length; ++i) grades[i] = uint8(uint256(column[i]) >> shift);
        }
        return _median(grades, sheet.weights, graders, sheet.known, 1);
    }

    function _skew(Sheet memory sheet, bytes32[] memory column, uint256 i) internal view returns (uint8) {
        if (!_has(sheet.pairs, i)) return NONE;
        uint256 shift = 8 * (31 - (i % 32));
        uint256[] memory apart = new uint256[](column.length);
        uint256 row;
        unchecked {
            for (uint256 j; j < column.length; ++j) {
                if (j % 32 == 0) row = uint256(_slips[i][j / 32]);
                uint256 given = uint8(row >> (8 * (31 - (j % 32))));
                uint256 got = uint8(uint256(column[j]) >> shift);
                apart[j] = given > got ? given - got : got - given;
            }
        }
        return _median(apart, sheet.weights, sheet.pairs & ~(1 << i), sheet.known, 0);
    }

    /// @dev The smallest value at or below which lies half of the weight of the set or more; with `over` = 1 more than
    ///      half. Where nobody in the set has weight, those of `known` weigh the same; NONE where there is nobody.
    ///      Values of the set are 0..100; at most 255 weights of at most 10000: nothing overflows. Sorted into a bin a
    ///      value, which is cheaper than a search that sums again.
    function _median(
        uint256[] memory values,
        uint256[] memory weights,
        uint256 set,
        uint256 known,
        uint256 over
    ) internal pure returns (uint8) {
        uint256[] memory bins = new uint256[](101);
        uint256 total;
        unchecked {
            for (uint256 i; i < values.length; ++i) {
                if ((set >> i) & 1 == 0) continue;
                bins[values[i]] += weights[i];
                total += weights[i];
            }
            if (total == 0) {
                set &= known;
                if (set == 0) return NONE;
                for (uint256 i; i < values.length; ++i) {
                    if ((set >> i) & 1 == 0) continue;
                    ++bins[values[i]];
                    ++total;
                }
            }
            uint256 sum = bins[0];
            uint256 value;
            while (2 * sum < total + over) sum += bins[++value];
            return uint8(value);
        }
    }

    /// @dev From scores to reputation, flags and exclusion; then the next round.
    function _finish(uint32 round, State memory s, Sheet memory sheet) internal {
        Rules memory r = _rules;
        uint256 n = sheet.n;
        _decide(sheet);
        {
            uint256[] memory scores = new uint256[](n);
            uint256[] memory same = new uint256[](n); // no weights: all weigh the same
            uint256 scored;
            for (uint256 j; j < n; ++j) {
                scores[j] = uint8(sheet.scores[j]);
                if (scores[j] != NONE) scored |= 1 << j;
            }
            uint8 middle = _median(scores, same, scored & sheet.known, sheet.known, 0);
            sheet.strong = sheet.enough && middle != NONE && middle >= (sheet.early ? r.strongEarly : r.strongLate);
        }
        for (uint256 i; i < n; ++i) {
            if (_has(sheet.judged, i)) _judge(sheet, r, i);
        }
        uint256 median = _medianReputation(sheet, sheet.active & sheet.known);
        uint256 bound = (sheet.early ? r.lowEarly : r.lowLate) * median;
        for (uint256 i; i < n; ++i) {
            Node memory node = sheet.nodes[i];
            if (!_has(sheet.active, i) || !node.scored) continue;
            uint256 share = 100 * uint256(node.reputation);
            bool low = share < bound;
            bool flagged = (sheet.enough && uint8(sheet.scores[i]) == 0) || share < r.warn * median;
            if (low) sheet.low |= 1 << i;
            if (flagged) sheet.flagged |= 1 << i;
            if (sheet.strong && _has(sheet.judged, i)) node.low = low ? _next(node.low) : 0;
            if (node.low >= r.lowInARow || node.hard >= r.hardInARow) {
                sheet.out |= 1 << i;
                s.credits -= node.credits;
                node.credits = 0;
                node.reputation = 0;
            } else if (!flagged && sheet.enough && _has(sheet.pairs, i)) {
                node.credits += node.reputation;
                s.credits += node.reputation;
            }
        }
        uint16[] memory reputation = new uint16[](n);
        for (uint256 i; i < n; ++i) {
            reputation[i] = sheet.nodes[i].reputation;
            if (_has(sheet.active, i)) _nodes[i] = sheet.nodes[i];
        }
        if (sheet.out != 0) _excluded |= sheet.out;
        emit RoundSettled(
            round,
            _cut(sheet.scores, n),
            _cut(sheet.asymmetry, n),
            reputation,
            sheet.low,
            sheet.flagged,
            sheet.out,
            sheet.strong
        );
        ++s.settlements;
        s.closed = round;
        s.base = round;
        _counts[round / 256] |= 1 << (round % 256);
        _openNext(s);
    }

    /// @dev Whose conduct the settlement judges. In a synchronous task everybody's; in an asynchronous one that of who
    ///      submitted, if enough have graded, and in any case of who hid its grades once others could be seen.
    function _decide(Sheet memory sheet) internal view {
        if (_window == 0) {
            sheet.enough = true;
            sheet.judged = sheet.active;
            sheet.missed = sheet.active & ~sheet.pairs;
            return;
        }
        sheet.enough = _count(sheet.revealed) >= _quorum(sheet.active);
        sheet.missed = _committed & ~EMPTY & ~sheet.revealed;
        sheet.judged = sheet.enough ? sheet.submitted | sheet.missed : sheet.missed;
    }

    /// @dev How many nodes an asynchronous task asks for: its rules' quorum, or all active ones, if they are fewer.
    function _quorum(uint256 active) internal view returns (uint256 want) {
        want = _count(active);
        if (_rules.quorum < want) want = _rules.quorum;
    }

    /// @dev A node's reputation and hard faults; see contracts/reputation.py for the rule.
    function _judge(Sheet memory sheet, Rules memory r, uint256 i) internal pure {
        Node memory node = sheet.nodes[i];
        uint8 score = sheet.enough ? uint8(sheet.scores[i]) : NONE;
        uint8 skew = uint8(sheet.asymmetry[i]);
        bool missed = _has(sheet.missed, i);
        uint256 value = missed ? 0 : score; // NONE: nobody graded it
        if (sheet.strong && skew != NONE && skew > r.asymmetry) value = 0;
        if (value != NONE) {
            if (!node.scored) {
                node.reputation = uint16(100 * value);
                node.scored = true;
            } else if (sheet.strong || missed || score == 0) {
                uint256 kept = r.keep;
                node.reputation = uint16((kept * node.reputation + (100 - kept) * 100 * value) / 100);
            }
        }
        if (score != NONE) node.hard = score == 0 ? _next(node.hard) : 0;
    }

    function _next(uint8 count) internal pure returns (uint8) {
        return count == 255 ? 255 : count + 1;
    }

    /// @dev Lower median of the reputation of those in the set that were scored; by bisection over 0..10000.
    function _medianReputation(Sheet memory sheet, uint256 set) internal pure returns (uint256 low) {
        uint256 n = sheet.n;
        uint256[] memory values = new uint256[](n);
        uint256 count;
        for (uint256 i; i < n; ++i) {
            if (_has(set, i) && sheet.nodes[i].scored) values[count++] = sheet.nodes[i].reputation;
        }
        uint256 high = 10_000;
        while (low < high) {
            uint256 middle = (low + high) / 2;
            uint256 below;
            for (uint256 i; i < count; ++i) {
                if (values[i] <= middle) ++below;
            }
            if (2 * below >= count) high = middle;
            else low = middle + 1;
        }
    }

    function _read(bytes memory data, uint256 w) internal pure returns (bytes32 word) {
        assembly {
            word := mload(add(add(data, 32), mul(w, 32)))
        }
    }

    function _write(bytes memory data, uint256 w, bytes32 word) internal pure {
        assembly {
            mstore(add(add(data, 32), mul(w, 32)), word)
        }
    }

    function _cut(bytes memory data, uint256 length) internal pure returns (bytes memory) {
        assembly {
            mstore(data, length)
        }
        return data;
    }
}
